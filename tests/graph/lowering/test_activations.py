"""Activation functions as nodes compute what their names say."""

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from small_models import make_model, weights

from onnx_sipp.graph.lowering.activations import activate, parameters_of, refuse_unknown
from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.lowering.flatten import flatten
from onnx_sipp.graph.lowering.sketch import Sketch
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import NotPrunable

X = weights(3, 5)
# Parameters that are given, and the function that they make.
FUNCTIONS = {
    "Affine": ([2.0, 0.5], lambda x: 2 * x + 0.5),
    "Clip": ([-0.5, 0.25], lambda x: np.clip(x, -0.5, 0.25)),
    "Elu": ([0.5], lambda x: np.where(x < 0, 0.5 * (np.exp(x) - 1), x)),
    "HardSigmoid": ([0.3], lambda x: np.clip(0.3 * x + 0.5, 0, 1)),
    "LeakyRelu": ([], lambda x: np.where(x < 0, 0.01 * x, x)),
    "Relu": ([], lambda x: np.maximum(x, 0)),
    "ScaledTanh": ([0.5, 2.0], lambda x: 0.5 * np.tanh(2 * x)),
    "Sigmoid": ([], lambda x: 1 / (1 + np.exp(-x))),
    "Softplus": ([], lambda x: np.log1p(np.exp(x))),
    "Softsign": ([], lambda x: x / (1 + np.abs(x))),
    "Tanh": ([], np.tanh),
    "ThresholdedRelu": ([0.4], lambda x: np.where(x > 0.4, x, 0)),
}


def written(name, parameters, dtype=np.float32):
    """The nodes that a function becomes, as a model."""
    base = make_model([("Relu", "x", "unused")], {}, {"x": X.shape}, ["unused"])
    builder = Builder(flatten(Model.load(base)), {})
    sketch = Sketch(builder, dtype)
    last = activate(sketch, name, "x", parameters)
    model = make_model(sketch.nodes, {}, {"x": X.shape}, [last])
    model.graph.initializer.extend(builder.constants.fixed.values())
    return model, last


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions(name, dtype):
    parameters, expected = FUNCTIONS[name]
    for spelling in (name, name.lower(), name.upper()):
        model, last = written(spelling, parameters, dtype)
        (y,) = ReferenceEvaluator(model).run([last], {"x": X.astype(dtype)})
        assert y.dtype == dtype
        np.testing.assert_allclose(y, expected(X.astype(dtype)), rtol=1e-5, atol=1e-6)


def test_no_function():
    model, last = written("", [])
    assert (last, len(model.graph.node)) == ("x", 0)


def test_parameters():
    assert [parameters_of(name) for name in ("Tanh", "elu", "ScaledTanh")] == [0, 1, 2]


def test_a_name_that_is_not_known():
    refuse_unknown("", 3)
    refuse_unknown("Tanh", 3)
    with pytest.raises(NotPrunable, match="Other is not known") as refused:
        refuse_unknown("Other", 3)
    assert refused.value.parameters == 3
