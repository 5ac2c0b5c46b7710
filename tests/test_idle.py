"""Weights on dead paths make room for others."""

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import pytest
from dead_checks import facts_of
from small_models import make_model, weights

from onnx_sipp import prune
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.idle import Idle, Trial, find_idle, spend_again, without
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.mixing import Choice
from onnx_sipp.weights import group_weights


def squared_error(before, after):
    return float(np.sum((after - before) ** 2) / np.sum(before**2))


def run(proto, x, name):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: x})[0]


# --- what is idle ------------------------------------------------------------------------------


def idle_of(proto, biased=()):
    model = lower(Model.load(proto))
    flow, layers = Flow(model), find_layers(model).layers
    return find_idle(model, flow, group_weights(model, layers), biased)


def chain(**values):
    nodes = [("Gemm", "x w b", "h", {"name": "first"}), ("Gemm", "h v c", "y", {"name": "second"})]
    return make_model(nodes, {"b": weights(5), "c": weights(2), **values})


def test_rows_that_nobody_reads_and_columns_that_are_constant():
    first, second = weights(4, 5), weights(5, 2)
    first[:, 1] = 0
    second[3] = 0
    proto = chain(w=first, v=second)
    one, two = idle_of(proto, ["first", "second"])
    assert np.flatnonzero(one.neurons).tolist() == [1, 3]
    np.testing.assert_array_equal(one.weights, np.repeat(one.neurons[..., None], 4, axis=2))
    assert not two.neurons.any()
    assert np.flatnonzero(two.weights[0].all(axis=0)).tolist() == [1, 3]
    assert np.count_nonzero(two.weights) == 4
    one, two = idle_of(proto, ["first"])  # the constant is not zero, and nothing could take it up
    assert np.flatnonzero(one.neurons).tolist() == [3]


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
    assert np.flatnonzero(shared.neurons).tolist() == [2]
    assert np.flatnonzero(shared.weights[0].all(axis=1)).tolist() == [2]
    assert np.count_nonzero(shared.weights) == 4


def test_a_weight_that_layers_see_turned_round():
    nodes = [
        ("MatMul", "x w", "h", {"name": "forth"}),
        ("Relu", "h", "r"),
        ("Gemm", "r w", "y", {"name": "back", "transB": 1}),
    ]
    weight = weights(4, 5)
    weight[:, 2] = 0  # neuron 2 is dead, and its input in the other layer: the same weights
    (idle,) = idle_of(make_model(nodes, {"w": weight}))
    assert not idle.neurons.any()  # the layers have neurons of their own
    assert np.flatnonzero(idle.weights[0].all(axis=1)).tolist() == [2]
    assert np.count_nonzero(idle.weights) == 4


def test_a_weight_that_something_else_reads_may_need_every_element():
    second = weights(5, 2)
    second[3] = 0
    proto = chain(w=weights(4, 5), v=second)
    model = lower(Model.load(proto))
    flow, layers = Flow(model), find_layers(model).layers
    both = group_weights(model, layers)
    one, two = find_idle(model, flow, both, ["first", "second"], ["first"])
    assert not one.weights.any()
    assert not one.neurons.any()
    assert np.flatnonzero(two.weights[0].all(axis=0)).tolist() == [3]


def test_tied_weights_end_to_end():
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


# --- taking it out -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """As much of evidence as `without` looks at."""

    weight: np.ndarray
    gain: np.ndarray


def evidence_of(weight) -> Evidence:
    return Numbers(weight, np.ones(weight.shape[:2]))


def dead_neuron(shape, neuron):
    neurons = np.zeros(shape[:2], np.bool_)
    neurons[0, neuron] = True
    return Idle(np.repeat(neurons[..., None], shape[2], axis=2), neurons)


def test_idle_weights_are_zero_and_their_neurons_count_nothing():
    weight = weights(1, 3, 4)
    (found,) = without([evidence_of(weight)], [dead_neuron(weight.shape, 1)], 8)
    np.testing.assert_array_equal(found.weight[0, 1], 0)
    np.testing.assert_array_equal(found.weight[0, [0, 2]], weight[0, [0, 2]])
    assert found.gain.tolist() == [[1, 0, 1]]


def test_nothing_is_taken_out_if_too_few_would_be_left():
    weight = weights(1, 3, 4)
    given = [evidence_of(weight)]
    assert without(given, [dead_neuron(weight.shape, 1)], 9) is given


# --- passes ------------------------------------------------------------------------------------


class Passes:
    """Passes over a layer of 10 neurons with 10 weights each, with planned errors.

    Every pass keeps 40 weights, 10 of them on a dead neuron if ``wasteful``.
    """

    def __init__(self, errors, *, wasteful=True):
        self.errors, self.wasteful, self.starts = errors, wasteful, []
        self.first = self.run([evidence_of(weights(1, 10, 10))])

    def run(self, start):
        number = len(self.starts)
        self.starts.append(start)
        kept = np.zeros((1, 10, 10), np.bool_)
        kept[0, :4] = True
        choice = Choice(kept, kept.astype(np.float64), np.zeros((1, 10)), "", 0.0, 0.0, 0.0)
        return Trial(number, [choice], start, self.run)

    def idle(self, model):
        shape = (1, 10, 10)
        return [dead_neuron(shape, model if self.wasteful else 9)]

    def spend(self):
        return spend_again(self.first, 40, self.idle, lambda model: self.errors[model] ** 2)


def test_passes_go_on_while_they_help():
    passes = Passes([0.5, 0.4, 0.3, 0.2, 0.1])
    trial, respent = passes.spend()
    assert trial.model == 3  # no more than three repeats
    assert list(respent.weights) == [30]
    assert np.flatnonzero(respent.neurons[0]).tolist() == [0, 1, 2]
    assert list(respent.errors) == pytest.approx([0.5, 0.4, 0.3, 0.2])
    for number, (start,) in enumerate(passes.starts):
        dead = np.flatnonzero(~start.weight[0].any(axis=1)).tolist()
        assert dead == list(range(number))  # what was idle stays out


def test_a_pass_that_does_not_help_is_not_used():
    trial, respent = Passes([0.5, 0.4, 0.4, 0.2]).spend()
    assert trial.model == 1
    assert np.flatnonzero(respent.neurons[0]).tolist() == [0]
    assert list(respent.weights) == [10]
    assert list(respent.errors) == pytest.approx([0.5, 0.4])


def test_nothing_is_repeated_for_nothing():
    passes = Passes([0.5, 0.4], wasteful=False)
    trial, respent = passes.spend()
    assert (trial.model, len(passes.starts)) == (0, 1)
    assert list(respent.weights) == [0]


def test_little_is_not_worth_a_pass(monkeypatch):
    monkeypatch.setattr("onnx_sipp.idle._WORTH", 0.25)
    passes = Passes([0.5, 0.4])
    assert passes.spend()[0].model == 0


# --- end to end --------------------------------------------------------------------------------

FAST = {"allocation": "error", "candidates": ("removal-cost",), "threads": 2}


def digits(models, name, **options):
    path = models / f"{name}.onnx"
    options = {"num_samples": 120, **FAST, **options}
    return prune(path, models / "digits-calib.npz", **options)


@pytest.mark.parametrize("name", ["lenet300", "lenet5", "transformer"])
@pytest.mark.parametrize("rounds", [1, 2])
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
