"""Layers by the constants that they multiply."""

import numpy as np
import pytest
from small_models import make_model, tied, weights

from onnx_sipp.errors import SippError
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.pipeline import prune
from onnx_sipp.weight_groups import group_weights

W = weights(4, 6, seed=3)
DATA = np.random.default_rng(0).standard_normal((60, 4), np.float32)


def test_grouping():
    model = lower(Model(tied(W)))
    (weight,) = group_weights(model, find_layers(model).layers)
    assert [layer.name for layer in weight.layers] == ["encode", "decode"]
    np.testing.assert_array_equal(weight.matrix, W.T[None])
    other = weight.as_seen_by(weight.layers[1], weight.matrix)
    np.testing.assert_array_equal(other, W[None])
    np.testing.assert_array_equal(weight.from_layer(weight.layers[1], other), weight.matrix)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(bad):
    broken = weights(4, 3)
    broken[1, 2] = bad
    model = make_model([("MatMul", "x w", "y", {"name": "layer"})], {"w": broken})
    with pytest.raises(SippError, match="'w' of layer 'layer' holds infinities or NaN"):
        prune(model, DATA)


def test_a_block_that_is_not_finite_is_found():
    broken = weights(4, 10)
    broken[1, 8] = np.nan
    model = lower(Model(make_model([("MatMul", "x w", "y", {"name": "layer"})], {"w": broken})))
    with pytest.raises(SippError, match="'w' of layer 'layer' holds infinities or NaN"):
        group_weights(model, find_layers(model).layers, 12)
