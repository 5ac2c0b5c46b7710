"""Which steps of sequences are data, and what came before each."""

import numpy as np
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from small_models import make_model, weights

from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.lowering.flatten import flatten
from onnx_sipp.graph.lowering.sequences import Steps
from onnx_sipp.graph.lowering.sketch import Sketch
from onnx_sipp.graph.model import Model

X = weights(3, 5, 2)
INITIAL = weights(3, 1, 2, seed=1)
LENGTHS = np.array([5, 2, 0], np.int32)


def evaluated(opset, lengths, write):
    """What a function of the steps writes down, computed."""
    inputs = {"x": X.shape, "h": INITIAL.shape, "n": LENGTHS.shape}
    base = make_model([("Relu", "x", "unused")], {}, inputs, ["unused"])
    base.opset_import[0].version = opset
    builder = Builder(flatten(Model.load(base)), {})
    sketch = Sketch(builder)
    name = write(Steps(sketch, "n" if lengths else "", "x"))
    model = make_model(sketch.nodes, {}, inputs, [name])
    model.opset_import[0].version = opset
    model.graph.input[2].type.tensor_type.elem_type = TensorProto.INT32
    model.graph.initializer.extend(builder.constants.fixed.values())
    return ReferenceEvaluator(model).run([name], {"x": X, "h": INITIAL, "n": LENGTHS})[0]


opsets = pytest.mark.parametrize("opset", [9, 13, 18])


@opsets
def test_steps_beyond_the_end_are_no_data(opset):
    found = evaluated(opset, True, lambda steps: steps.data("x", 2))
    np.testing.assert_array_equal(found, [X[0, 0], X[1, 0], X[0, 1], X[1, 1], *X[0, 2:]])


@opsets
@pytest.mark.parametrize("initial", ["h", ""])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_step_before(opset, initial, lengths, reverse):
    found = evaluated(opset, lengths, lambda steps: steps.before("x", initial, reverse=reverse))
    assert found.shape == X.shape
    for at, length in enumerate(LENGTHS if lengths else [5] * 3):
        first = INITIAL[at] if initial else np.zeros((1, 2), np.float32)
        own = X[at, :length]
        expected = np.concatenate([own[1:], first] if reverse else [first, own[:-1]])
        np.testing.assert_array_equal(found[at, :length], expected[:length])
