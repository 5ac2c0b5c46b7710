"""Nodes that every opset understands."""

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from small_models import make_model, weights

from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.lowering.flatten import flatten
from onnx_sipp.graph.lowering.sketch import Sketch
from onnx_sipp.graph.model import Model

X = weights(3, 4)


def sketch_of(opset, constants=None):
    base = make_model([("Add", "x b", "y")], constants or {"b": weights(4)}, {"x": X.shape})
    base.opset_import[0].version = opset
    return Sketch(Builder(flatten(Model.load(base)), {}))


@pytest.mark.parametrize("opset", [8, 10, 17])
@pytest.mark.parametrize(
    ("start", "end", "expected"), [(0, -1, X[:, :-1]), (1, 3, X[:, 1:3]), (1, 99, X[:, 1:])]
)
def test_slice(opset, start, end, expected):
    sketch = sketch_of(opset)
    name = sketch.slice("x", 1, start, end)
    model = make_model(sketch.nodes, {}, {"x": X.shape}, [name])
    model.opset_import[0].version = opset
    model.graph.initializer.extend(sketch.builder.constants.fixed.values())
    (found,) = ReferenceEvaluator(model).run([name], {"x": X})
    np.testing.assert_array_equal(found, expected)


def test_constants_keep_their_rank():
    sketch = sketch_of(17)
    dims = [
        list(sketch.builder.constants.fixed[sketch.constant(values)].dims)
        for values in (0, [0], [[0, 1]])
    ]
    assert dims == [[], [1], [1, 2]]


def test_bias():
    sketch = sketch_of(17)
    assert sketch.bias("x", "") == "x"
    assert sketch.bias("x", "x") == "x"  # no constant
    assert not sketch.nodes
    added = sketch.bias("x", "b", np.array([2, 3]))
    (node,) = sketch.nodes
    assert (node.op_type, node.output[0]) == ("Add", added)
    (virtual,) = sketch.builder.constants.virtual.values()
    assert virtual.ids.shape == (2,)
    assert virtual.operand == "b"


def test_a_bias_that_is_not_stored_is_left_out():
    sketch = sketch_of(17, {"b": weights(4).astype(np.int32)})
    assert sketch.bias("x", "b") == "x"
