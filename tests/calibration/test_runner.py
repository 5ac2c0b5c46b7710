"""Sessions on whole models, and how many batches go through one at the same time."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import make_model, mlp, weights

from onnx_sipp.calibration import runner as module
from onnx_sipp.calibration.at_once import batch_threads
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


def drawing(op_type, *inputs, **attributes):
    """A model that draws numbers, in a branch of it."""
    node = helper.make_node(op_type, ["x", *inputs], ["drawn"], **attributes)
    branch = helper.make_graph(
        [node], "then", [], [helper.make_tensor_value_info("drawn", TensorProto.FLOAT, None)]
    )
    nodes = [("If", "c", "y", {"then_branch": branch, "else_branch": branch})]
    ratio, true = np.array(0.5, np.float32), np.array(True)
    return make_model(nodes, {"c": true, "ratio": ratio, "trains": true})


@pytest.mark.parametrize(
    ("batches", "threads", "providers", "expected"),
    [
        (4, 2, None, 2),
        (4, 2, ["CPUExecutionProvider"], 2),
        (3, 2, None, None),  # threads of onnxruntime share what there is more evenly
        (2, 1, None, 1),  # of which a borrowed one makes two
        (1, 1, None, None),
        (4, None, None, None),
        (8, 16, None, 4),  # more would take much memory
        (7, 16, None, None),
        (4, 2, ["CUDAExecutionProvider", "CPUExecutionProvider"], None),
    ],
)
def test_how_many_batches_run_at_once(batches, threads, providers, expected):
    assert batch_threads(Model(mlp()), batches, threads, providers) == expected


@pytest.mark.parametrize(
    "proto",
    [
        drawing("RandomNormalLike"),
        drawing("Bernoulli"),
        drawing("Dropout", "ratio", "trains"),
    ],
    ids=lambda proto: proto.graph.node[0].attribute[0].g.node[0].op_type,
)
def test_what_is_drawn_depends_on_no_order(proto):
    assert batch_threads(Model(proto), 9, 2, None) is None
    assert batch_threads(Model(drawing("Dropout", "ratio")), 9, 2, None) == 2


def test_other_operators_and_large_models_run_alone(monkeypatch, tmp_path):
    model = Model(mlp())
    model.libraries = [tmp_path / "operators.so"]
    assert batch_threads(model, 9, 2, None) is None
    monkeypatch.setattr(module, "LARGE_BYTES", 0)
    assert batch_threads(Model(mlp()), 9, 2, None) is None
