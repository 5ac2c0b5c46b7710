"""Dead paths through pools, padding and resizing."""

import numpy as np
import onnx
import pytest
from dead_checks import CONSTANT, UNREAD, chain, check, constants, facts_of, unread
from small_models import weights

DEAD = {*CONSTANT, UNREAD}
KERNEL = {"kernel_shape": [2, 2]}
PADDED = {**KERNEL, "pads": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("MaxPool", PADDED),
        ("AveragePool", KERNEL),
        ("AveragePool", PADDED),
        ("AveragePool", {**KERNEL, "count_include_pad": 1}),
        ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        ("GlobalAveragePool", {}),
        ("GlobalMaxPool", {}),
    ],
)
def test_pools_keep_constants(op, attributes):
    facts = check(chain([(op, "h", "m", attributes)]))
    assert unread(facts["made"]) == DEAD
    assert constants(facts["reader"]) == pytest.approx(CONSTANT)


@pytest.mark.parametrize(
    "attributes",
    [
        {**PADDED, "count_include_pad": 1},
        {**KERNEL, "auto_pad": "SAME_UPPER", "count_include_pad": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1},
    ],
)
def test_a_mean_that_counts_padding_keeps_zeros_only(attributes):
    facts = check(chain([("Relu", "h", "r"), ("AveragePool", "r", "m", attributes)]))
    assert unread(facts["made"]) == {1, UNREAD}
    assert constants(facts["reader"]) == {1: 0.0}


def test_where_the_largest_stood_is_read_too():
    node = onnx.helper.make_node("MaxPool", ["h"], ["m", "places"], kernel_shape=[2, 2])
    assert unread(facts_of(chain([node]))["made"]) == set()


def test_padding_with_what_is_there():
    pads = {"p": np.array([0, 0, 1, 1, 0, 0, 2, 0]), "fill": np.float32(0.75)}
    zero = check(chain([("Relu", "h", "r"), ("Pad", "r p", "m")], pads))
    assert constants(zero["reader"]) == {1: 0.0}
    assert unread(zero["made"]) == {1, UNREAD}
    same = check(chain([("Pad", "h p fill", "m")], pads))
    assert constants(same["reader"]) == {2: 0.75}
    edge = check(chain([("Pad", "h p", "m", {"mode": "edge"})], pads))
    assert constants(edge["reader"]) == CONSTANT


def test_padding_in_an_attribute():
    node = ("Pad", "h", "m", {"pads": [0, 0, 1, 1, 0, 0, 1, 1], "value": -0.5})
    assert constants(facts_of(chain([node], opset=9))["reader"]) == {1: -0.5}


def test_padding_that_moves_channels_is_not_known():
    pads = {"p": np.array([0, 1, 0, 0, 0, -1, 0, 0])}
    assert unread(facts_of(chain([("Pad", "h p", "m")], pads))["made"]) == set()


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resizing(mode):
    scales = {"s": np.float32([1, 1, 2, 1.5])}
    node = onnx.helper.make_node("Resize", ["h", "", "s"], ["m"], mode=mode)
    facts = check(chain([node], scales))
    assert unread(facts["made"]) == DEAD
    assert constants(facts["reader"]) == CONSTANT


def test_resizing_across_channels_is_not_known():
    node = onnx.helper.make_node("Resize", ["h", "", "s"], ["m"])
    for scales in ([1, 2, 1, 1], [1, 1.1, 1, 1]):
        inputs = int(6 * scales[1])
        proto = chain([node], {"s": np.float32(scales)}, inputs=inputs, skips=())
        assert unread(facts_of(proto)["made"]) == set()


def test_resizing_that_looks_beyond_the_border():
    node = onnx.helper.make_node(
        "Resize", ["h", "roi", "s"], ["m"], coordinate_transformation_mode="tf_crop_and_resize"
    )
    values = {"s": np.float32([1, 1, 2, 2]), "roi": np.float32([0, 0, 0, 0, 1, 1, 2, 2])}
    facts = facts_of(chain([node], values))
    assert constants(facts["reader"]) == {}


def test_what_differs_from_place_to_place_is_no_constant():
    middle = [("Mul", "h k", "a"), ("MaxPool", "a", "m", KERNEL)]
    facts = check(chain(middle, {"k": weights(4, 4)}))
    assert constants(facts["reader"]) == {}
    assert unread(facts["made"]) == {UNREAD}
