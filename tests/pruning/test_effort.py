"""What costs more is tried less."""

import pytest

from onnx_sipp.pruning.effort import FULL, LEAST, MODERATE, effort_for, trial_work


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


@pytest.mark.parametrize(
    ("work", "products"),
    [
        # In two ways alone, with a step before the first one, and by three budgets in haste.
        (1e6, 2 * 9 + 3 * (3 * 4 + 9)),
        (1e9, 2 * 5 + 3 * (1 * 2 + 4)),
        (4e9, 2 * 4 + 3 * (1 * 2 + 4)),
    ],
)
def test_what_it_takes_to_try_budgets(work, products):
    assert trial_work(work) == work * products
