"""Each kind of layer is refitted like the plain layer that it is."""

import pytest
from equivalents import assert_same_as_plain_conv
from small_models import make_model, weights


def correlated(count, *shape, seed=0):
    """Samples whose channels say something of each other."""
    values = weights(count, *shape, seed=seed)
    values[:, :, 1:] += 0.7 * values[:, :, :-1]
    return list(values)


CONVOLUTIONS = {
    "plain": ({}, (4, 3, 3), 1),
    "strided": ({"strides": [2], "pads": [1, 0], "output_padding": [1]}, (4, 3, 3), 1),
    "groups": ({"strides": [2, 1], "group": 2}, (4, 3, 2, 2), 2),
    "output shape": ({"strides": [2, 2], "output_shape": [7, 9]}, (4, 3, 3, 2), 2),
    "same": ({"strides": [2], "dilations": [2], "auto_pad": "SAME_LOWER"}, (4, 3, 3), 1),
}


@pytest.mark.parametrize(("attributes", "shape", "axes"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("biased", [True, False])
def test_conv_transpose(attributes, shape, axes, biased):
    feeds = correlated(20, 1, shape[0], *(4, 5)[:axes])
    neurons = shape[1] * attributes.get("group", 1)
    bias = {"b": weights(neurons, seed=2)} if biased else {}
    proto = make_model(
        [("ConvTranspose", "x w b" if biased else "x w", "y", attributes)],
        {"w": weights(*shape), **bias},
        inputs={"x": feeds[0].shape},
    )
    assert_same_as_plain_conv(proto, feeds)


def test_gemm_of_a_transposed_activation():
    feeds = correlated(30, 6, 9)
    values = {"w": weights(6, 4), "b": weights(4, seed=1)}
    proto = make_model(
        [("Gemm", "x w b", "y", {"transA": 1})], values, inputs={"x": feeds[0].shape}
    )
    assert_same_as_plain_conv(proto, feeds)


def test_gemm_with_the_constant_on_the_left():
    feeds = correlated(30, 9, 6)
    proto = make_model(
        [("Gemm", "w x", "y", {"transB": 1})], {"w": weights(4, 6)}, inputs={"x": feeds[0].shape}
    )
    assert_same_as_plain_conv(proto, feeds)
