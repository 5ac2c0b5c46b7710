"""Channels and the inputs that read them."""

import numpy as np
import pytest
from small_models import make_model, weights

from onnx_sipp.graph.dead.fan_in import FanIn
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model

IMAGE = {"x": ["n", 4, 5, 5]}
LAYERS = {
    "Conv": (("Conv", "x w", "y"), weights(3, 4, 2, 3), IMAGE),
    "grouped Conv": (("Conv", "x w", "y", {"group": 2}), weights(6, 2, 3, 3), IMAGE),
    "depthwise Conv": (("Conv", "x w", "y", {"group": 4}), weights(4, 1, 2, 2), IMAGE),
    "Gemm": (("Gemm", "x w", "y"), weights(4, 3), None),
    "Gemm, transposed input": (("Gemm", "x w", "y", {"transA": 1}), weights(4, 3), {"x": [4, 5]}),
    "MatMul on the left": (("MatMul", "w x", "y"), weights(3, 4), {"x": [2, 4, 5]}),
    "batched MatMul": (("MatMul", "x w", "y"), weights(2, 4, 3), {"x": [2, 5, 4]}),
}


def loaded(proto):
    return lower(Model.load(proto))


@pytest.mark.parametrize("name", LAYERS)
def test_patches_hold_the_channels_that_are_said(name):
    node, weight, inputs = LAYERS[name]
    model = loaded(make_model([node], {"w": weight}, inputs))
    (layer,) = find_layers(model).layers
    fan_in = FanIn.of(layer)
    shape = [size if isinstance(size, int) else 2 for size in (inputs or {"x": ["n", 4]})["x"]]
    axis = fan_in.along(len(shape))
    assert shape[axis] == fan_in.channels == 4
    # Number the channels: the patches show which of them each input reads.
    laid = [-1 if at == axis else 1 for at in range(len(shape))]
    numbered = np.broadcast_to(np.arange(1.0, 5).reshape(laid), shape)
    columns = layer.unfolding.unfold(numbered[None].astype(np.float32))
    read = fan_in.spread(np.arange(1.0, 5))
    assert read.shape == layer.view.matrix[::2]
    np.testing.assert_array_equal(columns, np.broadcast_to(read[..., None], columns.shape))
    for channel in range(4):
        only = fan_in.gathered(read == channel + 1)
        assert np.flatnonzero(only).tolist() == [channel]


def test_padding_is_noticed():
    for how, padded in (
        ({}, False),
        ({"pads": [0, 0, 0, 1]}, True),
        ({"auto_pad": "VALID"}, False),
        ({"auto_pad": "SAME_LOWER"}, True),
    ):
        model = loaded(make_model([("Conv", "x w", "y", how)], {"w": weights(3, 4, 2, 2)}, IMAGE))
        assert FanIn.of(find_layers(model).layers[0]).padded == padded


def test_a_vector_has_one_axis():
    node = ("MatMul", "w x", "y")
    model = loaded(make_model([node], {"w": weights(3, 4)}, {"x": [4]}))
    assert FanIn.of(find_layers(model).layers[0]).along(1) == 0
