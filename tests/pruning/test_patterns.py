import pytest

from onnx_sipp.checked import checked_options
from onnx_sipp.errors import UsageError
from onnx_sipp.pruning.patterns import Blocks, Channels, NofM, parse_pattern


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", None),
        ("2:4", NofM(2, 4)),
        ("1:16", NofM(1, 16)),
        ("4x1", Blocks(4, 1)),
        ("2X8", Blocks(2, 8)),
        ("2x1", Blocks(2, 1)),
        ("1x2", Blocks(1, 2)),
        ("1:2", NofM(1, 2)),
        ("channels", Channels()),
    ],
)
def test_patterns_are_read_and_written(text, pattern):
    assert parse_pattern(text) == pattern
    assert pattern is None or str(pattern) == text.lower()


@pytest.mark.parametrize("text", ["4:4", "5:4", "0:4", "1x1", "0x4", "2:4:8", "-1:4", "4 x 1", "x"])
def test_nonsense_is_refused(text):
    with pytest.raises(UsageError, match="pattern"):
        parse_pattern(text)


def test_n_of_m_implies_the_sparsity():
    assert checked_options({"pattern": "1:4"}).sparsity == 0.75
    assert checked_options({"pattern": "2:4", "sparsity": 0.5}).sparsity == 0.5
    assert checked_options({"pattern": "4x1", "sparsity": 0.7}).sparsity == 0.7


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pattern": "2:4", "sparsity": 0.7}, "50.0%"),
        ({"pattern": "2:4", "allocation": "lamp"}, "'lamp'"),
        ({"pattern": "2:4", "epsilon": 0.5}, "epsilon"),
        ({"pattern": "4x1", "epsilon": 0.5}, "epsilon"),
        ({"pattern": "2:4", "method": "sipp-rand"}, "sipp-rand"),
        ({"pattern": "4x1", "method": "sipp-hybrid"}, "sipp-hybrid"),
        ({"pattern": "4x1", "allocation": "sipp"}, "'sipp'"),
        ({"pattern": "4x1", "candidates": ["sipp-rand"]}, "sipp-rand"),
        ({"pattern": "half"}, "N:M"),
        ({"pattern": "2:4", "floor": 0.2}, "a floor goes with"),
    ],
)
def test_what_does_not_go_together_is_told(options, told):
    with pytest.raises(UsageError, match=told):
        checked_options(options)
