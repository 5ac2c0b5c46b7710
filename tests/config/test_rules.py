"""Rules hold for the layers that they match, and the total is met all the same."""

import numpy as np
import pytest
from small_models import mlp, weights

from onnx_sipp import UsageError, prune
from onnx_sipp.config.rules import Rule

DATA = weights(60, 4, seed=3)


def digits(models, **options):
    name = models / "lenet300.onnx"
    return prune(name, models / "digits-calib.npz", num_samples=80, threads=1, **options).report


def zeros(report):
    return {layer.name: (layer.zeros, layer.parameters) for layer in report.layers}


def test_a_rule_matches_by_all_it_says():
    rule = Rule.of({"nodes": ["layer1.*", "a[0]"], "shapes": "64×*x3x3", "exclude": True})
    assert rule.matches("layer1.conv", "Conv", "w", (64, 32, 3, 3))
    assert rule.matches("a[0]", "Conv", "w", (64, 32, 3, 3))
    assert not rule.matches("layer2.conv", "Conv", "w", (64, 32, 3, 3))
    assert not rule.matches("layer1.conv", "Conv", "w", (32, 32, 3, 3))


@pytest.mark.parametrize("options", [{}, {"rounds": 2}, {"allocation": "error"}])
def test_a_sparsity_of_its_own_is_met_and_so_is_the_total(models, options):
    rules = [{"nodes": "fc1", "sparsity": 0.5}]
    report = digits(models, sparsity=0.8, rules=rules, **options)
    found = zeros(report)
    assert found["fc1"][0] == round(0.5 * found["fc1"][1])
    assert report.zeros == round(0.8 * report.prunable)
    assert report.options["rules"] == [{"nodes": ["fc1"], "sparsity": 0.5}]


def test_the_last_rule_counts(models):
    rules = [
        {"op_types": "*", "sparsity": 0.9},
        {"shapes": "*x10", "sparsity": 0.25},
        {"weights": "fc3.w*", "sparsity": 0.25},
    ]
    layers = digits(models, sparsity=0.5).layers
    shares = {layer.name: 0.25 if layer.name == "fc3" else 0.9 for layer in layers}
    rules[1] = {"nodes": "fc3", "sparsity": 0.3}
    rules[2] = {"shapes": "x".join(map(str, layers[-1].shape)), "sparsity": 0.25}
    total = sum(shares[layer.name] * layer.parameters for layer in layers)
    total /= sum(layer.parameters for layer in layers)
    report = digits(models, sparsity=round(total, 4), rules=rules)
    for layer in report.layers:
        assert layer.zeros == round(shares[layer.name] * layer.parameters)


def test_what_cannot_be_met_says_what_can(models):
    with pytest.raises(
        UsageError, match=r"a sparsity of 10.00% cannot be met.* between 36.3347% and 98.0876%"
    ):
        digits(models, sparsity=0.1, rules=[{"nodes": "fc1", "sparsity": 0.95}])


@pytest.mark.parametrize("more", [0, 1, 2])
def test_what_is_almost_met_is_told(models, more):
    whole = {"include_nodes": ["fc2", "fc3"], "allocation": "error", "sparsity": 0.5}
    size = sum(size for _, size in zeros(digits(models, **whole)).values())
    rule = {"nodes": "fc2", "sparsity": (size // 2 + more) / (size - 1000)}
    report = digits(models, **whole, rules=[rule])
    assert report.zeros == size // 2 + more
    told = f"asked for {size // 2} zeros, but rules give single layers a sparsity of their own"
    warnings = [warning for warning in report.warnings if "asked for" in warning]
    assert warnings == ([f"{told}: the result has {report.zeros}"] if more else [])


def test_a_floor_of_its_own(models):
    free = zeros(digits(models, sparsity=0.5))
    share = {name: 1 - count / size for name, (count, size) in free.items()}
    name = min(share, key=share.get)
    assert share[name] < 0.4  # else the floor would do nothing
    kept = zeros(digits(models, sparsity=0.5, rules=[{"nodes": name, "floor": 0.45}]))
    assert kept[name][1] - kept[name][0] >= int(0.45 * kept[name][1])


def test_a_floor_above_the_share_of_all(models):
    """There is room for it where other layers make way."""
    options = {"sparsity": 0.7, "allocation": "error", "dead_paths": False}
    report = digits(models, rules=[{"nodes": "fc2", "floor": 0.4}], **options)
    count, size = zeros(report)["fc2"]
    assert size - count >= 0.4 * size
    assert report.zeros == round(0.7 * report.prunable)
    assert not any("floor" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"floor": 0.5}, ["fc1 (10.0%, not 50.0%)", "fc2 (10.0%, not 50.0%)", "fc3 ("]),
        ({"rules": [{"nodes": "fc1", "floor": 0.99}]}, ["%, not 99.0%)"]),
        (
            {"floor": 0.5, "rules": [{"nodes": "fc[13]", "sparsity": 0.9}]},
            ["fc2 (", "%, not 50.0%)"],
        ),
    ],
)
def test_a_floor_that_the_total_does_not_allow_is_told(models, options, told):
    report = digits(models, sparsity=0.9, allocation="error", **options)
    assert report.zeros == round(0.9 * report.prunable)
    (warning,) = (warning for warning in report.warnings if "floor" in warning)
    assert "weights that stay are fewer than the floors ask for" in warning
    assert all(words in warning for words in told)


def test_of_the_usual_floor_nothing_is_told(models):
    report = digits(models, sparsity=0.995, allocation="error")
    assert not any("floor" in warning for warning in report.warnings)


@pytest.mark.parametrize("pattern", ["2x2", ""])
def test_a_floor_that_is_kept_is_not_told(models, pattern):
    report = digits(
        models, sparsity=0.7, allocation="error", floor=0.29, pattern=pattern, dead_paths=False
    )
    assert all(size - count >= 0.285 * size for count, size in zeros(report).values())
    assert not any("floor" in warning for warning in report.warnings)


def test_candidates_of_its_own(models):
    rules = [{"nodes": "fc2", "candidates": "magnitude"}]
    layers = {layer.name: layer for layer in digits(models, sparsity=0.7, rules=rules).layers}
    assert layers["fc2"].candidate == "magnitude"
    assert layers["fc1"].candidate != "magnitude"


def test_layers_are_left_out_and_taken_back(models):
    rules = [{"nodes": "fc*", "exclude": True}, {"nodes": "fc2", "exclude": False}]
    report = digits(models, sparsity=0.5, rules=rules)
    assert list(zeros(report)) == ["fc2"]
    assert {skip.name for skip in report.skipped} >= {"fc1", "fc3"}


def test_a_search_minds_rules(models):
    rules = [{"nodes": "fc1", "sparsity": 0.5}]
    report = digits(models, max_error=0.1, rules=rules)
    found = zeros(report)
    assert found["fc1"][0] == round(0.5 * found["fc1"][1])
    assert report.outputs[0].relative_error <= 0.1


def test_only_some_layers_are_included(models):
    report = digits(models, sparsity=0.5, include_nodes=["fc[12]"], exclude_nodes=["fc1"])
    assert list(zeros(report)) == ["fc2"]
    reasons = {skip.name: skip.reason for skip in report.skipped}
    assert reasons["fc3"] == "not included by the user"
    assert list(zeros(digits(models, sparsity=0.5, include_op_types=["Gemm"]))) == [
        "fc1", "fc2", "fc3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rules": [{"nodes": "frist", "sparsity": 0.5}]}, "no prunable layer; there are first"),
        ({"rules": [{"nodes": "first", "sparsity": 0.5}], "method": "magnitude"}, "default method"),
        ({"rules": [{"nodes": "first", "floor": 0.5}], "pattern": "2:4"}, "default method"),
        ({"rules": [{"nodes": "first", "candidates": "magnitude"}], "method": "wanda"}, "default"),
        ({"rules": [{"nodes": "first", "zeros": 5}]}, "there is no 'zeros' here"),
        ({"include_nodes": ["frist"]}, "did you mean 'first'"),
        ({"include_op_types": ["Gem"]}, "did you mean 'Gemm'"),
    ],
)
def test_what_makes_no_sense(options, message):
    with pytest.raises(UsageError, match=message):
        prune(mlp(), DATA, **options)


def test_nothing_is_dropped_where_nothing_is_to_be(models):
    report = digits(models, sparsity=0.6, rules=[{"nodes": "fc3", "sparsity": 0.0}])
    assert zeros(report)["fc3"][0] == 0
    assert np.isfinite(report.outputs[0].relative_error)
