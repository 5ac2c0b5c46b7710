"""Sessions on whole models."""

import numpy as np
import pytest
from small_models import make_model, mlp, weights

from onnx_sipp.calibration import runner as module
from onnx_sipp.calibration.runner import Runner
from onnx_sipp.errors import SippError
from onnx_sipp.graph.model import Model


def feeds_for(shape, count, seed=0, name="x"):
    rng = np.random.default_rng(seed)
    return [{name: rng.standard_normal(shape, np.float32)} for _ in range(count)]


def test_taps():
    model = Model(mlp())
    runner = Runner(model, ["r", "x", "y", "r"])
    assert runner.taps == ["r", "x", "y"]
    feed = feeds_for((2, 4), 1)[0]
    values = runner.run(feed)
    assert list(values) == ["r", "x", "y"]
    assert values["x"] is feed["x"]
    hidden = np.maximum(feed["x"] @ model.read("w1") + model.read("b1"), 0)
    np.testing.assert_allclose(values["r"], hidden, rtol=1e-5)
    assert [output.name for output in model.proto.graph.output] == ["y"], "the model was changed"


def test_outputs_are_the_default():
    runner = Runner(Model(mlp()))
    assert list(runner.run(feeds_for((1, 4), 1)[0])) == ["y"]


def test_only_inputs_are_asked_for():
    feed = feeds_for((1, 4), 1)[0]
    assert Runner(Model(mlp()), ["x"]).run(feed)["x"] is feed["x"]


def test_inputs():
    (spec,) = Runner(Model(mlp()), []).inputs
    assert (spec.name, spec.dtype, spec.shape) == ("x", np.float32, ("n", 4))


def test_a_model_that_the_runtime_refuses():
    model = make_model([("NoSuchOperator", "x", "y")], {})
    with pytest.raises(SippError, match="onnxruntime .* refuses the model"):
        Runner(Model(model))


def test_an_input_that_the_model_fails_on():
    model = make_model([("MatMul", "x w", "y")], {"w": weights(4, 3)}, {"x": ["n", "k"]})
    with pytest.raises(SippError, match=r"fails on the input \(x \[2, 5\]\)"):
        Runner(Model(model)).run({"x": np.zeros((2, 5), np.float32)})


def test_inputs_alone_need_no_session(monkeypatch):
    runner = Runner(Model(make_model([("Relu", "x", "y")], {})), ["x"])
    monkeypatch.delattr(module, "open_session")
    feed = {"x": np.ones((1, 4), np.float32)}
    assert runner.run(feed)["x"] is feed["x"]
