"""Samples are joined into batches only where every tensor falls apart again."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import make_model, mlp, weights

from onnx_sipp.calibration import batching as module
from onnx_sipp.calibration.batching import Batching, batches, plan_batching
from onnx_sipp.calibration.runner import Runner
from onnx_sipp.errors import SippError
from onnx_sipp.graph.model import Model


def feeds_for(shape, count, seed=0, name="x"):
    rng = np.random.default_rng(seed)
    return [{name: rng.standard_normal(shape, np.float32)} for _ in range(count)]


def plan(runner, feeds, largest=None):
    return plan_batching(runner.model, runner.run_all, runner.inputs, feeds[:2], largest)


def check_batches(model, taps, feeds, expect_joined):
    """Whatever the batching, every tensor is what the sample alone would have given."""
    runner = Runner(Model(model), taps)
    batching = plan(runner, feeds)
    assert (batching.size > 1) == expect_joined
    alone = [runner.run(feed) for feed in feeds]
    at = 0
    for batch in batches(runner, feeds, batching, runner.inputs):
        for name in runner.taps:
            expected = np.stack([values[name] for values in alone[at : at + batch.samples]])
            assert batch.tensors[name].shape == expected.shape
            np.testing.assert_allclose(batch.tensors[name], expected, rtol=1e-5, atol=1e-6)
        at += batch.samples
    assert at == len(feeds)
    return batching


def test_samples_are_joined():
    batching = check_batches(mlp(), ["x", "r", "y"], feeds_for((1, 4), 70), True)
    assert batching.axes == {"x": 0, "r": 0, "y": 0}
    assert batching.size == module.MAX_BATCH


def test_feeds_of_several_rows_are_joined():
    check_batches(mlp(), ["r"], feeds_for((3, 4), 9), True)


def test_the_size_of_the_taps_limits_the_batch(monkeypatch):
    monkeypatch.setattr(module, "BATCH_BYTES", 5 * (8 + 3) * 4)
    assert check_batches(mlp(), ["r", "y"], feeds_for((1, 4), 12), True).size == 5


def test_the_user_limits_the_batch():
    runner, feeds = Runner(Model(mlp())), feeds_for((1, 4), 10)
    assert plan(runner, feeds, 7).size == 7
    assert plan(runner, feeds, 1).size == 1
    sizes = [
        batch.samples for batch in batches(runner, feeds, plan(runner, feeds, 7), runner.inputs)
    ]
    assert sizes == [7, 3]


def test_a_single_sample():
    check_batches(mlp(), ["r"], feeds_for((1, 4), 1), False)


def test_a_fixed_batch_is_not_joined():
    model = make_model([("Relu", "x", "y")], {}, {"x": [2, 4]})
    check_batches(model, ["y"], feeds_for((2, 4), 3), False)


def test_sequence_major_tensors():
    """The batch of an inner tensor may stand on another axis."""
    nodes = [
        ("Transpose", "x", "t", {"perm": [1, 0, 2]}),
        ("MatMul", "t w", "m"),
        ("Transpose", "m", "y", {"perm": [1, 0, 2]}),
    ]
    model = make_model(nodes, {"w": weights(4, 3)}, {"x": ["n", "s", 4]})
    batching = check_batches(model, ["t", "m", "y"], feeds_for((1, 5, 4), 6), True)
    assert batching.axes == {"t": 1, "m": 1, "y": 0}


def test_sequence_major_tensors_that_fold_the_batch_are_not_joined():
    """Rows of several samples lie one in the other: [sequence * batch, features]."""
    nodes = [
        ("Transpose", "x", "t", {"perm": [1, 0, 2]}),
        ("Reshape", "t shape", "y"),
    ]
    model = make_model(nodes, {"shape": np.array([-1, 4])}, {"x": ["n", "s", 4]})
    check_batches(model, ["y"], feeds_for((1, 5, 4), 6), False)


def test_folded_batches_fall_apart():
    """[batch * sequence, features], sample by sample."""
    model = make_model(
        [("Reshape", "x shape", "y")], {"shape": np.array([-1, 4])}, {"x": ["n", "s", 4]}
    )
    batching = check_batches(model, ["y"], feeds_for((1, 5, 4), 6), True)
    assert batching.axes == {"y": 0}


def test_a_reshape_with_the_batch_written_in_is_not_joined():
    model = make_model(
        [("Reshape", "x shape", "y")], {"shape": np.array([1, 20])}, {"x": ["n", "s", 4]}
    )
    check_batches(model, ["y"], feeds_for((1, 5, 4), 4), False)


def test_tensors_that_do_not_depend_on_the_sample():
    nodes = [("Shape", "x", "s", {"start": 1}), ("Cast", "s", "f", {"to": TensorProto.FLOAT})]
    nodes += [("Add", "x b", "y")]
    model = make_model(nodes, {"b": weights(4)}, {"x": ["n", 4]}, ["y"])
    batching = check_batches(model, ["f", "y"], feeds_for((1, 4), 5), True)
    assert batching.axes["f"] is None


def test_samples_that_act_on_each_other_are_not_joined():
    nodes = [
        ("ReduceMean", "x", "m", {"axes": [0], "keepdims": 1}),
        ("Sub", "x m", "y"),
    ]
    check_batches(make_model(nodes, {}), ["y"], feeds_for((1, 4), 4), False)


def test_infinities_hide_no_difference():
    """Some tensors hold infinities on purpose (attention masks)."""
    nodes = [
        ("ReduceMean", "x", "m", {"axes": [0], "keepdims": 1}),
        ("Sub", "x m", "d"),
        ("Add", "d mask", "y"),
    ]
    mask = np.array([0, 0, 0, -np.inf], np.float32)
    check_batches(make_model(nodes, {"mask": mask}), ["y"], feeds_for((1, 4), 4), False)
    check_batches(make_model([("Add", "x mask", "y")], {"mask": mask}), ["y"],
                  feeds_for((1, 4), 4), True)  # fmt: skip


def test_samples_of_different_shapes_are_run_apart():
    model = make_model([("MatMul", "x w", "y")], {"w": weights(4, 3)}, {"x": ["n", "s", 4]})
    runner = Runner(Model(model), ["y"])
    lengths = [5, 5, 5, 3, 3, 5, 2]
    feeds = [feeds_for((1, n, 4), 1, n)[0] for n in lengths]
    found = list(batches(runner, feeds, plan(runner, feeds), runner.inputs))
    assert [batch.samples for batch in found] == [3, 2, 1, 1]
    assert [batch.tensors["y"].shape[2] for batch in found] == [5, 3, 5, 2]


def test_inputs_without_a_batch_must_be_equal_to_join():
    nodes = [("Mul", "x scale", "y")]
    model = make_model(nodes, {}, {"x": ["n", 4], "scale": []})
    runner = Runner(Model(model), ["y"])
    feeds = feeds_for((1, 4), 4)
    for feed, scale in zip(feeds, (2, 2, 2, 3), strict=True):
        feed["scale"] = np.array(scale, np.float32)
    found = list(batches(runner, feeds, plan(runner, feeds), runner.inputs))
    assert [batch.samples for batch in found] == [3, 1]
    np.testing.assert_allclose(found[1].tensors["y"][0], feeds[3]["x"] * 3)


def test_what_is_empty_for_two_samples_may_not_be_for_others():
    """A detector that finds nothing in the first two samples, and something in a later one."""
    nodes = [
        ("Greater", "x zero", "g"),
        ("NonZero", "g", "places"),
        ("Transpose", "places", "t", {"perm": [1, 0]}),
        ("Cast", "t", "y", {"to": TensorProto.FLOAT}),
    ]
    model = make_model(nodes, {"zero": np.float32(0)})
    feeds = [{"x": np.full((1, 4), value, np.float32)} for value in (-1, -1, 1, -1, 1)]
    runner = Runner(Model(model), ["y"])
    batching = plan(runner, feeds)
    assert batching.size == 1
    assert [b.tensors["y"].shape[1] for b in batches(runner, feeds, batching, runner.inputs)] == [
        0,
        0,
        4,
        0,
        4,
    ]


def test_a_tensor_that_does_not_fall_apart_names_the_way_out():
    with pytest.raises(SippError, match="--batch-size 1"):
        Batching(4, {"y": 0}).separate("y", np.zeros((5, 2)), 2)


def test_outputs_that_are_no_tensors():
    nodes = [("SequenceConstruct", "x x", "y")]
    model = make_model(nodes, {})
    value_type = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(value_type))
    runner = Runner(Model(model))
    feeds = feeds_for((1, 4), 3)
    batching = plan(runner, feeds)
    assert batching.size == 1
    values = [batch.tensors["y"] for batch in batches(runner, feeds, batching, runner.inputs)]
    assert [len(value) for value in values] == [2, 2, 2]
