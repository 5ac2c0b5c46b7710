"""Weights on dead paths make room for others."""

import numpy as np
import onnxruntime as ort
import pytest
from dead_checks import facts_of
from onnx import TensorProto, helper
from small_models import make_model, weights

from onnx_sipp import prune
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.refitting.idle import Idle, find_idle, read_elsewhere
from onnx_sipp.weight_groups import group_weights


def squared_error(before, after):
    return float(np.sum((after - before) ** 2) / np.sum(before**2))


def run(proto, x, name):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: x})[0]


# --- what is idle ------------------------------------------------------------------------------


def idle_of(proto, biased=(), tied=()):
    model = lower(Model.load(proto))
    flow, layers = Flow(model), find_layers(model).layers
    return find_idle(model, flow, group_weights(model, layers), biased, tied)


def chain(**values):
    nodes = [("Gemm", "x w b", "h", {"name": "first"}), ("Gemm", "h v c", "y", {"name": "second"})]
    return make_model(nodes, {"b": weights(5), "c": weights(2), **values})


def places(mask):
    return np.flatnonzero(mask).tolist()


def test_neurons_that_nobody_reads_and_inputs_that_are_constant():
    first, second = weights(4, 5), weights(5, 2)
    first[:, 1] = 0
    second[3] = 0
    proto = chain(w=first, v=second)
    one, two = idle_of(proto, ["first", "second"])
    assert (places(one.neurons), places(one.inputs)) == ([1, 3], [])
    assert (places(two.neurons), places(two.inputs)) == ([], [1, 3])
    one, two = idle_of(proto, ["first"])  # the constant is not zero, and nothing could take it up
    assert (places(one.neurons), places(two.inputs)) == ([3], [3])


def test_a_shared_weight_is_idle_where_all_its_layers_agree():
    nodes = [
        *(("MatMul", f"{x} w", f"h{x}", {"name": x}) for x in "ab"),
        ("MatMul", "ha u", "ya", {"name": "ua"}),
        ("MatMul", "hb v", "yb", {"name": "vb"}),
    ]
    u, v = weights(5, 2), weights(5, 2)
    u[[1, 2]] = v[[2, 3]] = 0
    values = {"w": weights(4, 5), "u": u, "v": v}
    shapes = {"a": ["n", 4], "b": ["n", 4]}
    shared, *_ = idle_of(make_model(nodes, values, shapes, ["ya", "yb"]))
    assert (places(shared.neurons), places(shared.inputs)) == ([2], [])


def test_a_weight_that_layers_see_turned_round():
    nodes = [
        ("MatMul", "x w", "h", {"name": "forth"}),
        ("Relu", "h", "r"),
        ("Gemm", "r w", "y", {"name": "back", "transB": 1}),
    ]
    weight = weights(4, 5)
    weight[:, 2] = 0
    (idle,) = idle_of(make_model(nodes, {"w": weight}))
    assert idle.is_empty


def test_a_weight_that_something_else_reads_may_need_every_element():
    second = weights(5, 2)
    second[3] = 0
    one, two = idle_of(chain(w=weights(4, 5), v=second), ["first", "second"], ["first"])
    assert one.is_empty
    assert places(two.inputs) == [3]


def test_a_branch_that_is_never_taken_may_be_on_other_data():
    branches = {
        name: helper.make_graph(
            [helper.make_node("MatMul", ["h", weight], [f"{name}_y"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)],
        )
        for name, weight in (("then_branch", "u"), ("else_branch", "v"))
    }
    nodes = [
        ("MatMul", "x w", "h", {"name": "made"}),
        helper.make_node("If", ["yes"], ["y"], name="if", **branches),
    ]
    taken, other = weights(5, 2), weights(5, 2)
    taken[[1, 2]] = other[[2, 3]] = 0
    values = {"w": weights(4, 5), "u": taken, "v": other, "yes": np.bool_(True)}
    made, *_ = idle_of(make_model(nodes, values))
    assert places(made.neurons) == []


@pytest.mark.parametrize("op_type", ["LSTM", "GRU", "RNN"])
def test_layers_that_stand_beside_a_node_for_its_inner_products(op_type):
    """The sketch of a recurrent node computes no more than its layers need; the node reads all."""
    rows = 3 * {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type]
    node = helper.make_node(op_type, ["x", "w", "r"], ["y"], name="n", hidden_size=3)
    values = {"w": weights(1, rows, 4), "r": weights(1, rows, 3)}
    model = lower(Model.load(make_model([node], values, {"x": [5, 2, 4]})))
    flow, layers = Flow(model), find_layers(model).layers
    both = group_weights(model, layers)
    elsewhere = read_elsewhere(model, flow, both)
    assert elsewhere == {layer.name for layer in layers} != set()
    assert all(idle.is_empty for idle in find_idle(model, flow, both, [], elsewhere))


def test_what_reads_a_weight_elsewhere():
    nodes = [
        ("MatMul", "x w", "h", {"name": "first"}),
        ("Transpose", "v", "t"),
        ("MatMul", "h t", "k", {"name": "second"}),
        ("Gather", "w places", "z"),
        ("Add", "k c", "y"),
    ]
    values = {"w": weights(4, 5), "v": weights(2, 5), "c": weights(2), "places": np.array([0, 2])}
    model = lower(Model.load(make_model(nodes, values, outputs=["y", "z"])))
    layers = find_layers(model, include_tied=True).layers
    assert [layer.name for layer in layers] == ["first", "second"]
    assert read_elsewhere(model, Flow(model), group_weights(model, layers)) == {"first"}


# --- taking it out -----------------------------------------------------------------------------


def some_idle(shape, neurons=(), inputs=()):
    idle = Idle(np.zeros(shape[:2], np.bool_), np.zeros(shape[::2], np.bool_))
    idle.neurons[0, list(neurons)] = True
    idle.inputs[0, list(inputs)] = True
    return idle


def test_idle_weights_are_zero_and_their_neurons_count_nothing():
    weight = weights(1, 3, 4)
    idle = some_idle(weight.shape, [1], [2])
    found = idle.taken_from(Evidence.unseen(weight, weight), slice(None))
    expected = weight.copy()
    expected[0, 1] = expected[0, :, 2] = 0
    np.testing.assert_array_equal(found.weight, expected)
    assert found.gain.tolist() == [[1, 0, 1]]


def test_some_neurons_of_a_weight():
    weight = weights(1, 5, 4)
    idle = some_idle(weight.shape, [3])
    for rows in (slice(2, 4), np.array([0, 3])):
        part = Evidence.unseen(weight[:, rows], weight[:, rows])
        found = idle.taken_from(part, rows)
        np.testing.assert_array_equal(found.weight[0, 1], 0)
        np.testing.assert_array_equal(found.weight[0, 0], part.weight[0, 0])
        assert found.gain.tolist() == [[1, 0]]


def test_nothing_is_copied_where_nothing_is_idle():
    weight = weights(1, 3, 4)
    evidence = Evidence.unseen(weight, weight)
    idle = some_idle(weight.shape)
    assert idle.taken_from(evidence, slice(None)) is evidence
    assert idle.cleared(weight) is weight


@pytest.mark.parametrize("block_size", [1 << 20, 10])
def test_idle_weights_are_counted_block_by_block(block_size):
    value = weights(7, 5)
    value[0] = 0
    model = lower(Model.load(make_model([("MatMul", "x w", "y")], {"w": value}, {"x": ["n", 7]})))
    (weight,) = group_weights(model, find_layers(model).layers, block_size)
    assert len(weight.blocks) == (1 if block_size > 100 else 5)
    assert some_idle(weight.shape, [1, 4], [0, 2]).count(weight, model) == 2 * 6 + 3


# --- end to end --------------------------------------------------------------------------------


def test_tied_weights():
    """What reads the weight beside the layer sees all that was kept of it."""
    nodes = [
        ("MatMul", "x w", "h", {"name": "first"}),
        ("MatMul", "h v", "y", {"name": "second"}),
        ("Mul", "w two", "z"),
    ]
    second = weights(8, 3)
    second[2:] = 0  # most of the first layer is dead, but for the other reader
    values = {"w": weights(4, 8), "v": second, "two": np.float32(2)}
    proto = make_model(nodes, values, outputs={"y": ["n", 3], "z": [4, 8]})
    result = prune(proto, weights(60, 4), sparsity=0.5, threads=1, include_tied=True)
    assert result.report.zeros == 28
    assert result.report.freed == 0


FAST = {"allocation": "error", "candidates": ("removal-cost",), "threads": 2}


def digits(models, name, **options):
    path = models / f"{name}.onnx"
    options = {"num_samples": 120, **FAST, **options}
    return prune(path, models / "digits-calib.npz", **options)


@pytest.mark.parametrize(
    ("name", "rounds"), [("lenet300", 1), ("lenet300", 2), ("lenet5", 1), ("transformer", 1)]
)
def test_high_sparsity(models, name, rounds):
    x = np.load(models / "digits-test.npz")["input"][:300]
    dense = run(Model.load(models / f"{name}.onnx").proto, x, "input")
    errors = {}
    for dead_paths in (False, True):
        result = digits(models, name, sparsity=0.97, dead_paths=dead_paths, rounds=rounds)
        report = result.report
        assert report.zeros == round(0.97 * report.prunable)
        errors[dead_paths] = squared_error(dense, run(result.model, x, "input"))
        assert (report.freed > 0) == dead_paths
    assert sum(row.freed for row in report.layers) == report.freed
    assert any(row.dead_neurons for row in report.layers)
    assert report.freed_errors == sorted(report.freed_errors, reverse=True)
    assert errors[True] < errors[False]


def wasted(model, layers):
    """Weights that are not zero though nothing comes of them."""
    facts = facts_of(model)
    stored = lower(Model.load(model))
    total = 0
    for layer in layers:
        used = layer.view.to_matrix(stored.read(layer.weight)) != 0
        idle = facts[layer.name].unread[..., None] | facts[layer.name].removable[:, None, :]
        total += int(np.count_nonzero(used & idle))
    return total


def test_fewer_weights_do_nothing_afterwards(models):
    layers = find_layers(lower(Model.load(models / "lenet300.onnx"))).layers
    left = [
        wasted(digits(models, "lenet300", sparsity=0.97, dead_paths=dead).model, layers)
        for dead in (True, False)
    ]
    assert left[0] < 0.25 * left[1]


def test_neurons_that_are_dead_in_the_given_model(models):
    """They lose their weights before any other is touched."""
    first, second = weights(4, 8), weights(8, 3, seed=1)
    second[2] = 0  # nobody reads neuron 2
    first[:, 5] = 0  # neuron 5 is constant
    nodes = [("Gemm", "x w b", "h", {"name": "first"}), ("Relu", "h", "r"),
             ("Gemm", "r v c", "y", {"name": "second"})]  # fmt: skip
    bias = np.abs(weights(8)) + np.float32(0.5)
    values = {"w": first, "b": bias, "v": second, "c": weights(3)}
    proto = make_model(nodes, values, outputs={"y": ["n", 3]})
    free = 4 + 3  # weights of neuron 2, weights that read neuron 5
    zeros = 4 + 3 + free  # and those that are zero already
    x = weights(60, 4, seed=3)
    result = prune(proto, x, sparsity=zeros / 56, threads=1)
    assert result.report.zeros == zeros
    np.testing.assert_allclose(run(result.model, x, "x"), run(proto, x, "x"), rtol=1e-4, atol=1e-4)
    assert [row.dead_neurons for row in result.report.layers] == [2, 0]
    # A neuron that nobody reads is no error of its layer.
    assert all(row.measured_error < 1e-5 for row in result.report.layers)
    plain = prune(proto, x, sparsity=zeros / 56, threads=1, dead_paths=False)
    assert squared_error(run(proto, x, "x"), run(plain.model, x, "x")) > 1e-6


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3])
def test_low_sparsity_of_a_model_that_is_mostly_dead(sparsity):
    second = weights(8, 3, seed=1)
    second[1:] = 0
    nodes = [("Gemm", "x w b", "h"), ("Gemm", "h v c", "y")]
    values = {"w": weights(4, 8), "b": weights(8), "v": second, "c": weights(3)}
    proto = make_model(nodes, values)
    result = prune(proto, weights(60, 4), sparsity=sparsity, threads=1)
    # 21 weights are zero already.
    assert result.report.zeros == max(21, round(sparsity * 56))


def test_the_methods_of_the_paper_free_nothing(models):
    report = digits(
        models, "lenet300", sparsity=0.97, method="sipp-det", allocation="", candidates=()
    ).report
    assert (report.freed, report.freed_errors) == (0, [])


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_other_methods_with_a_refit(models, method):
    options = {"method": method, "compensate": "sequential", "allocation": "", "candidates": ()}
    report = digits(models, "lenet300", sparsity=0.97, **options).report
    assert report.zeros == round(0.97 * report.prunable)
    assert len(report.freed_errors) >= 1


def test_the_report_says_what_was_freed(models):
    report = digits(models, "lenet300", sparsity=0.97).report
    data = report.to_dict()
    assert data["freed"] == report.freed > 0
    assert data["freed_errors"][-1] < data["freed_errors"][0]
    assert {row["freed"] for row in data["layers"]} != {0}
