"""A large model gives in segments what it gives as a whole."""

import pickle

import numpy as np
import pytest
from small_models import make_model, mlp, save_external, weights

from onnx_sipp.calibration import batching as batching_module
from onnx_sipp.calibration import runner as runner_module
from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.runner import Runner, is_large
from onnx_sipp.calibration.session import open_session
from onnx_sipp.graph.model import Model
from onnx_sipp.store import TensorStore

FEEDS = [{"x": weights(1, 4, seed=seed)} for seed in range(11)]


@pytest.fixture(params=["whole", "in segments"])
def execution(request, monkeypatch):
    if request.param == "in segments":
        monkeypatch.setattr(runner_module, "LARGE_BYTES", 0)
    inputs = Runner(Model(mlp()), []).inputs
    return Execution(inputs, TensorStore(0), threads=1)


def test_what_is_large(monkeypatch):
    model = Model(mlp())
    assert not is_large(model)
    size = sum(map(model.constant_bytes, model.stored))
    monkeypatch.setattr(runner_module, "LARGE_BYTES", size - 1)
    assert is_large(model)
    monkeypatch.setattr(runner_module, "LARGE_BYTES", size)
    assert not is_large(model)


@pytest.mark.parametrize("stages", [[["x", "r", "y"]], [["x"], ["r"], ["r", "y"]]])
@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_sweeps(execution, stages, batch_size):
    model = Model(mlp())
    execution = Execution(execution.inputs, execution.store, batch_size=batch_size)
    batching = execution.plan(model, stages, FEEDS)
    assert batching.size == (batch_size or batching_module.MAX_BATCH)
    runner = Runner(model, ["x", "r", "y"])
    expected = [runner.run(feed) for feed in FEEDS]
    sweeps = execution.sweeps(model, stages, FEEDS, batching)
    for names, sweep in zip(stages, sweeps, strict=True):
        for _ in range(2):  # it can be gone through again
            batches = list(sweep)
            assert sum(batch.samples for batch in batches) == len(FEEDS)
            for name in names:
                found = np.concatenate([batch.tensors[name] for batch in batches])
                whole = np.stack([tensors[name] for tensors in expected])
                np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)


@pytest.fixture
def opened(monkeypatch):
    """What sessions were opened on."""
    sessions = []

    def counting(data, **settings):
        sessions.append(data)
        return open_session(data, **settings)

    monkeypatch.setattr(runner_module, "open_session", counting)
    return sessions


def test_a_session_on_a_whole_model_serves_to_plan_and_to_run(execution, opened):
    model, stages = Model(mlp()), [["r", "y"]]
    whole = execution.whole(model, stages)
    assert (whole is None) == is_large(model)
    if whole is not None:
        batching = execution.plan(model, stages, FEEDS, whole)
        (sweep,) = execution.sweeps(model, stages, FEEDS, batching, whole)
        assert sum(batch.samples for batch in sweep) == len(FEEDS)
        assert len(opened) == 1
    assert execution.whole(model, [["r"], ["y"]]) is None


def test_what_is_known_of_tensors_is_not_found_out_again(execution, opened):
    model = Model(mlp())
    shapes = execution.shapes(model, ["x", "r"], FEEDS[0])
    found = Runner(model, ["x", "r"]).run(FEEDS[0])
    assert shapes == {"x": found["x"].shape, "r": found["r"].shape}
    batching = execution.plan(model, [["r"]], FEEDS)
    opened.clear()
    told = pickle.loads(pickle.dumps(execution.known))
    other = Execution(execution.inputs, execution.store, known=told)
    assert other.shapes(model, ["r"], FEEDS[1]) == {"r": shapes["r"]}
    assert other.plan(model, [["r"]], FEEDS) == batching
    assert not opened
    assert other.shapes(model, ["r", "y"], FEEDS[1]).keys() == {"r", "y"}  # one is new


def test_nothing_is_asked_for_but_what_was_named(execution):
    model = Model(mlp())
    batching = execution.plan(model, [["r"], ["y"]], FEEDS)
    for sweep in execution.sweeps(model, [["r"], ["y"]], FEEDS, batching):
        (batch,) = sweep
        assert len(batch.tensors) == len(list(batch.tensors)) == 1
        with pytest.raises(KeyError):
            batch.tensors["x"]


def test_outputs_that_are_constants_or_inputs(execution):
    proto = make_model([("Relu", "x", "r")], {"c": weights(2)}, outputs=("c", "x", "r"))
    model, names = Model(proto), ["c", "x", "r"]
    batching = execution.plan(model, [names], FEEDS)
    sweeps = execution.sweeps(model, [names], FEEDS, batching)
    (batch,) = next(sweeps)
    np.testing.assert_array_equal(batch.tensors["c"], np.tile(weights(2), (11, 1)))
    np.testing.assert_array_equal(batch.tensors["x"], np.stack([feed["x"] for feed in FEEDS]))


def test_outputs_of_several_feeds(execution, tmp_path):
    model = Model.load(save_external(mlp(), tmp_path / "m.onnx"))
    runner = Runner(model)
    for found, feed in zip(execution.outputs(model, FEEDS), FEEDS, strict=True):
        np.testing.assert_allclose(found["y"], runner.run(feed)["y"], rtol=1e-5)


def test_shapes(execution):
    found = execution.shapes(Model(mlp()), ["r", "x"], FEEDS[0])
    assert found == {"r": (1, 8), "x": (1, 4)}


@pytest.mark.parametrize(
    "nodes", [[("Softmax", "x", "y", {"axis": 0})], [("ReduceSum", "x", "y", {"keepdims": 0})]]
)
def test_samples_that_cannot_be_told_apart_are_not_joined(execution, nodes):
    assert execution.plan(Model(make_model(nodes, {})), [["y"]], FEEDS).size == 1


def test_a_single_sample(execution):
    model = Model(mlp())
    batching = execution.plan(model, [["y"]], FEEDS[:1])
    sweeps = execution.sweeps(model, [["y"]], FEEDS[:1], batching)
    assert [batch.tensors["y"].shape for batch in next(sweeps)] == [(1, 1, 3)]


def test_a_large_model_that_is_not_run_is_not_prepared(monkeypatch):
    monkeypatch.setattr(runner_module, "LARGE_BYTES", 0)
    seen = []
    opened = runner_module.open_session

    def note(*args, **options):
        seen.append(options["idle"])
        return opened(*args, **options)

    monkeypatch.setattr(runner_module, "open_session", note)
    assert [spec.name for spec in Runner(Model(mlp()), []).inputs] == ["x"]
    Runner(Model(mlp()), ["y"])
    assert seen == [True, False]


@pytest.mark.parametrize("threads", [1, 2, 3, 11])
def test_outputs_do_not_depend_on_how_many_batches_run_at_once(execution, threads):
    model = Model(mlp())
    several = Execution(execution.inputs, execution.store, threads=threads)
    expected = [Runner(model, threads=1).run(feed) for feed in FEEDS]
    for found, wanted in zip(several.outputs(model, FEEDS), expected, strict=True):
        np.testing.assert_array_equal(found["y"], wanted["y"])
