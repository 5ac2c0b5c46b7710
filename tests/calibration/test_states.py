"""Which inputs are states."""

import numpy as np
import pytest

from onnx_sipp.calibration.specs import InputSpec
from onnx_sipp.calibration.states import check_states, find_states
from onnx_sipp.errors import UsageError


def spec(name, shape=(1, 4), dtype=np.float32):
    return InputSpec(name, dtype, shape)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("h0", "hn"),
        ("h_0", "h_n"),
        ("state", "stateN"),
        ("hidden_in", "hidden_out"),
        ("conv_cache", "conv_cache_out"),
        ("past_0", "present_0"),
        ("past_key_values.3.key", "present.3.key"),
        ("prev_state", "new_state"),
        ("r1i", "r1o"),
    ],
)
def test_pairs_of_names(given, made):
    assert find_states([spec("x"), spec(given)], [spec("y"), spec(made)]) == {given: made}


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([spec("x"), spec("h0")], [spec("y"), spec("hn", (1, 5))]),
        ([spec("x"), spec("h0")], [spec("y"), spec("hn", (1, 4), np.float64)]),
        ([spec("x"), spec("h0", ("n", 4))], [spec("hn", ("m", 4))]),
        ([spec("x"), spec("h0"), spec("h")], [spec("hn")]),
        ([spec("image_in")], [spec("image_out")]),
        ([spec("input"), spec("other")], [spec("output")]),
    ],
    ids=["shape", "type", "growing", "two fit", "no other input", "no name in common"],
)
def test_what_is_no_pair(inputs, outputs):
    assert find_states(inputs, outputs) == {}


def test_open_dimensions_fit():
    found = find_states([spec("x"), spec("state", (2, None, 8))], [spec("stateN", (None,) * 3)])
    assert found == {"state": "stateN"}


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({"nope": "hn"}, "'nope' is no input .* x, h0"),
        ({"h0": "nope"}, "'nope', which is no output .* y, hn"),
        ({"h0": "y"}, r"'y', float32 \[1, 5\], cannot be fed to the state 'h0', float32 \[1, 4\]"),
        ({"h0": "hn", "x": "hn"}, "every input is named"),
    ],
)
def test_named_states_are_checked(states, message):
    with pytest.raises(UsageError, match=message):
        check_states(states, [spec("x"), spec("h0")], [spec("y", (1, 5)), spec("hn")])
