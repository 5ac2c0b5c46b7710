"""What costs more is tried less."""

import pytest

from onnx_sipp.pruning.effort import FULL, LEAST, MODERATE, effort_for


@pytest.mark.parametrize(
    ("work", "expected", "in_haste"),
    [(0, FULL, MODERATE), (2.5e8, FULL, MODERATE), (2.6e8, MODERATE, LEAST),
     (2e9, MODERATE, LEAST), (2.1e9, LEAST, LEAST)],
)  # fmt: skip
def test_effort_for(work, expected, in_haste):
    assert effort_for(work) is expected
    assert effort_for(work, hasty=True) is in_haste


def test_levels_descend():
    for more, less in ((FULL, MODERATE), (MODERATE, LEAST)):
        assert len(more.schedule) * more.stage_steps > len(less.schedule) * less.stage_steps
        assert more.screening_steps > less.screening_steps
        assert more.steps > less.steps


def test_every_schedule_ends_with_all_that_is_to_go():
    for effort in (FULL, MODERATE, LEAST):
        assert list(effort.schedule) == sorted(effort.schedule)
        assert effort.schedule[-2:] == (1, 1)
