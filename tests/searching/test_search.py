"""The sparsity that meets a goal is found over one calibration."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from small_models import mlp, weights

from onnx_sipp import SippError, UsageError, prune
from onnx_sipp.calibration.sources import held_out_mask
from onnx_sipp.measures import measure_statistics
from onnx_sipp.quantizing.saturation import cuts_off_sums
from onnx_sipp.searching.search import HIGHEST, RESOLUTION

DATA = weights(60, 4, seed=3)


def digits(models, **options):
    name = models / "lenet300.onnx"
    return prune(name, models / "digits-calib.npz", num_samples=80, threads=1, **options)


def run(proto, values):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: values})[0].astype(np.float64)


def worst_error(result):
    return max(output.relative_error for output in result.report.outputs)


@pytest.mark.parametrize(
    "options", [{}, {"method": "magnitude"}, {"method": "wanda", "compensate": "sequential"}]
)
def test_the_goal_is_met_and_hardly_more_could_go(models, options):
    result = digits(models, max_error=0.05, **options)
    report = result.report
    assert worst_error(result) <= 0.05
    assert report.zeros == round(report.search.sparsity * report.prunable)
    missed = [s.sparsity for s in report.search.steps if s.careful and not s.meets]
    assert min(missed) - report.search.sparsity <= RESOLUTION + 1e-9
    # What the search says is what `prune` does at that sparsity; budgets may differ a little.
    above = digits(models, sparsity=report.search.sparsity + 2 * RESOLUTION, **options)
    assert worst_error(above) > 0.9 * 0.05


def test_it_calibrates_once(models, monkeypatch):
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return measure_statistics(*arguments)

    monkeypatch.setattr("onnx_sipp.preparing.measure_statistics", counted)
    report = digits(models, min_agreement=0.9).report
    assert len(calls) == 1
    assert len(report.search.steps) > 2
    assert report.outputs[0].top1_agreement >= 0.9


def test_all_goals_hold(models):
    loose = digits(models, max_error=0.2).report
    both = digits(models, max_error=0.2, min_agreement=1.0).report
    assert both.outputs[0].top1_agreement == 1.0
    assert both.outputs[0].relative_error <= 0.2
    assert both.search.sparsity <= loose.search.sparsity


@pytest.mark.parametrize(
    ("goal", "options"),
    [
        (0.1 if cuts_off_sums() else 0.01, {"quantize": "int8"}),
        (0.006, {"storage": "packed", "pack_values": "int8"}),
    ],
)
def test_the_goal_holds_for_what_is_written(models, goal, options):
    """Integers err by themselves, and leave less to pruning."""
    result = digits(models, max_error=goal, method="magnitude", **options)
    plain = digits(models, max_error=goal, method="magnitude").report
    assert result.report.search.sparsity < plain.search.sparsity
    feeds = np.load(models / "digits-calib.npz")["input"][:80]
    held_out = feeds[held_out_mask(len(feeds))]
    before, after = (
        run(proto, held_out) for proto in (onnx.load(models / "lenet300.onnx"), result.model)
    )
    error = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert worst_error(result) == pytest.approx(error, rel=1e-3)
    assert error <= goal


def test_a_goal_that_integers_alone_miss(models):
    with pytest.raises(SippError, match="no sparsity was found .* once the model is quantised"):
        digits(models, max_error=0.006, method="magnitude", quantize="int8")


def test_the_users_metric_decides(models):
    def kept(path):  # falls as weights go, whatever the model does
        model = onnx.load(path)
        arrays = map(onnx.numpy_helper.to_array, model.graph.initializer)
        return sum(int(np.count_nonzero(a)) for a in arrays if a.ndim == 2)

    prunable = digits(models, sparsity=0.5, method="magnitude").report.prunable
    report = digits(models, max_drop=0.3 * prunable, eval_script=kept).report
    assert report.search.metric_dense == prunable
    assert 0.3 - RESOLUTION <= report.search.sparsity <= 0.3
    assert report.options["eval_script"] == "kept"


def test_a_goal_that_anything_meets_ends_at_the_highest(models):
    assert digits(models, max_error=1e9, method="magnitude").report.search.sparsity == HIGHEST


def test_weights_that_do_nothing_are_no_answer_to_a_goal_out_of_reach():
    with pytest.raises(SippError, match="no sparsity was found with relative error at most 1e-12"):
        prune(mlp(), DATA, max_error=1e-12, method="magnitude")
    with pytest.raises(SippError, match="no sparsity was found"):
        prune(mlp(), DATA, max_error=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_error": 0.1, "sparsity": 0.5}, "either max_error or sparsity"),
        ({"min_agreement": 0.9, "epsilon": 1.0}, "either min_agreement or epsilon"),
        ({"max_error": 0.1, "pattern": "2:4"}, "fixes the sparsity"),
        ({"max_error": 0.1, "pattern": "channels"}, "cutting channels"),
        ({"max_error": -1}, "max_error must be"),
        ({"min_agreement": 99}, "between 0 and 1"),
        ({"max_drop": 1.0}, "go together"),
        ({"eval_script": "judge.py"}, "go together"),
        ({"max_drop": float("nan"), "eval_script": "judge.py"}, "max_drop must be"),
    ],
)
def test_goals_that_make_no_sense(options, message):
    with pytest.raises(UsageError, match=message):
        prune(mlp(), DATA, **options)


def test_agreement_needs_classes(models):
    from small_models import make_model

    model = make_model([("Gemm", "x w", "h"), ("Unsqueeze", "h axes", "y")],
                       {"w": weights(4, 8), "axes": np.array([1, 2])})  # fmt: skip
    with pytest.raises(UsageError, match="no output of the model looks like class scores"):
        prune(model, DATA, min_agreement=0.9, method="magnitude")
