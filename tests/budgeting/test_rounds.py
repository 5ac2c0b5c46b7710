"""Budgets, candidates and rounds around the refit."""

import numpy as np
import onnx
import pytest
from small_models import make_model, mlp, weights, without_new_biases

from onnx_sipp import prune
from onnx_sipp.graph.model import Model
from onnx_sipp.pruning.candidates import CANDIDATES
from onnx_sipp.pruning.methods import METHODS, allocations_of
from onnx_sipp.refitting.refitter import Refitter

DATA = weights(60, 4, seed=3)
EXAMPLES = ("lenet300", "lenet5", "resnet_bn", "transformer")
FAST = {"allocation": "neuron", "candidates": ("activation",), "threads": 1}


def zeros_in(result):
    model = Model.load(result.model)
    return sum(
        int(np.count_nonzero(model.read(name) == 0))
        for name in {row.weight for row in result.report.layers}
    )


def digits(models, name, **options):
    path = models / f"{name}.onnx"
    return prune(path, models / "digits-calib.npz", **{"num_samples": 10, "threads": 2, **options})


def check_untouched(before, result):
    """All but pruned tensors and the biases that took up a change is the same, byte for byte."""
    touched = {row.weight for row in result.report.layers} - {""}
    touched |= {row.bias for row in result.report.layers if not row.bias_is_new} - {""}
    copies = []
    for proto in (before, without_new_biases(result.model, result.report)):
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        model = Model(copy)
        for name in touched:
            model.replace(name, np.zeros_like(model.read(name)))
        copies.append(copy.SerializeToString(deterministic=True))
    assert copies[0] == copies[1]


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("sparsity", [0.5, 0.7, 0.9])
def test_exact_sparsity_and_nothing_else_changes(models, name, sparsity):
    result = digits(models, name, sparsity=sparsity, **FAST)
    assert result.report.zeros == zeros_in(result) == round(sparsity * result.report.prunable)
    check_untouched(onnx.load(models / f"{name}.onnx"), result)


def test_the_default_compares_budgets(models):
    result = digits(models, "lenet5", sparsity=0.9, candidates=("activation",))
    report = result.report
    assert report.zeros == zeros_in(result) == round(0.9 * report.prunable)
    assert report.budget in report.budgets
    assert report.budgets[report.budget] == min(report.budgets.values())
    check_untouched(onnx.load(models / "lenet5.onnx"), result)


@pytest.mark.parametrize("allocation", allocations_of("mixed"))
@pytest.mark.parametrize("compensate", ["sequential", "layerwise", "none"])
def test_every_allocation(allocation, compensate):
    result = prune(
        mlp(), DATA, sparsity=0.6, allocation=allocation, compensate=compensate, threads=1
    )
    assert result.report.zeros == zeros_in(result) == round(0.6 * result.report.prunable)
    check_untouched(mlp(), result)


@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.7, 0.98])
def test_every_candidate_alone(candidate, sparsity):
    result = prune(mlp(), DATA, sparsity=sparsity, candidates=(candidate,), threads=1)
    assert result.report.zeros == zeros_in(result) == round(sparsity * result.report.prunable)
    assert {row.candidate for row in result.report.layers} <= {candidate, ""}


@pytest.mark.parametrize("compensate", ["sequential", "layerwise"])
def test_rounds(models, compensate):
    result = digits(models, "lenet5", sparsity=0.8, rounds=2, compensate=compensate, **FAST)
    assert result.report.zeros == zeros_in(result) == round(0.8 * result.report.prunable)
    once = digits(models, "lenet5", sparsity=0.8, compensate=compensate, **FAST)
    assert result.report.outputs[0].relative_error < 2 * once.report.outputs[0].relative_error


@pytest.mark.parametrize(("several", "used"), [(0.5, False), (0.1, True)])
def test_rounds_are_used_where_they_help(monkeypatch, several, used):
    errors = iter([several, 0.2])
    monkeypatch.setattr(Refitter, "output_error", lambda *_: next(errors))
    options = {"sparsity": 0.6, "threads": 1, "allocation": "error", "dead_paths": False}
    result = prune(mlp(), DATA, rounds=2, **options)
    told = any("2 rounds err more" in warning for warning in result.report.warnings)
    assert told is not used
    once = prune(mlp(), DATA, **options)
    same = result.model.SerializeToString() == once.model.SerializeToString()
    assert same is not used


@pytest.mark.parametrize(("data", "most"), [(DATA, 3), (None, 1)])
def test_made_up_samples_are_worth_one_repeat(monkeypatch, data, most):
    asked = []

    def repeated(best, *_, repeats, **__):
        asked.append(repeats)
        return best

    monkeypatch.setattr("onnx_sipp.budgeting.run.spend_again", repeated)
    prune(mlp(), data, sparsity=0.6, threads=1, allocation="error")
    assert asked == [most]


def test_a_pass_is_repeated_with_the_rounds_that_were_used(monkeypatch):
    made, errors = [], iter([0.5, 0.2])
    monkeypatch.setattr(Refitter, "output_error", lambda *_: next(errors))

    def repeated(best, *_, again, **__):
        before = len(made)
        again()
        assert len(made) == before + 1  # one pass: one round
        return best

    def counted(self, *args, refit=Refitter.refit, **options):
        made.append(refit(self, *args, **options))
        return made[-1]

    monkeypatch.setattr("onnx_sipp.budgeting.run.spend_again", repeated)
    monkeypatch.setattr(Refitter, "refit", counted)
    prune(mlp(), DATA, sparsity=0.6, rounds=2, threads=1, allocation="error")
    assert len(made) == 4


def test_rounds_with_all_budgets():
    result = prune(mlp(), DATA, sparsity=0.6, rounds=2, threads=1)
    assert result.report.zeros == zeros_in(result) == round(0.6 * result.report.prunable)


@pytest.mark.parametrize("method", [name for name in METHODS if name.startswith("sipp")])
def test_methods_of_the_paper_do_not_refit(method):
    result = prune(mlp(), DATA, sparsity=0.5, method=method)
    before, after = Model.load(mlp()), Model.load(result.model)
    for name in ("b1", "b2"):
        np.testing.assert_array_equal(after.read(name), before.read(name))
    if method == "sipp-det":
        for name in ("w1", "w2"):
            new = after.read(name)
            np.testing.assert_array_equal(new, np.where(new == 0, 0, before.read(name)))
    for row in result.report.layers:
        assert (row.damping, row.refit_error, row.bias, row.candidate) == (None, None, "", "")


@pytest.mark.parametrize("method", [name for name in METHODS if name != "mixed"])
@pytest.mark.parametrize("compensate", ["sequential", "layerwise"])
def test_other_methods_can_refit(method, compensate):
    result = prune(mlp(), DATA, sparsity=0.5, method=method, compensate=compensate, threads=1)
    assert result.report.zeros == zeros_in(result) == round(0.5 * result.report.prunable)
    last = result.report.layers[-1]  # what Relu cuts off of the first one is free
    assert last.refit_error <= last.refit_error_before


def test_outputs_with_masked_scores_are_compared():
    mask = np.where(np.arange(3) == 1, -np.inf, 0).astype(np.float32)
    nodes = [("MatMul", "x w1", "h"), ("Relu", "h", "r"), ("MatMul", "r w2", "s")]
    proto = make_model(
        [*nodes, ("Add", "s m", "y")], {"w1": weights(4, 8), "w2": weights(8, 3), "m": mask}
    )
    result = prune(proto, DATA, sparsity=0.5, threads=1)
    assert result.report.budgets
    assert all(0 < error < 1 for error in result.report.budgets.values())


def test_a_refit_is_never_worse_on_its_held_out_samples(models):
    for row in digits(models, "resnet_bn", sparsity=0.7, **FAST).report.layers:
        assert row.refit_error <= row.refit_error_before
