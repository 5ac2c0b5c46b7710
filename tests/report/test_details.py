"""What a report holds to be drawn."""

import numpy as np
import pytest
from small_models import mlp

from onnx_sipp import prune
from onnx_sipp.report.details import Distribution

RNG = np.random.default_rng(5)
DATA = RNG.standard_normal((40, 4), np.float32)


def plain(values, stays):
    """The counts one by one."""
    kept, dropped = [0] * 50, [0] * 50
    for value, stay in zip(values.ravel(), stays.ravel(), strict=True):
        if value > 0:
            place = min(max(int(np.floor((np.log10(value) + 5) * 10)), 0), 49)
            (kept if stay else dropped)[place] += 1
    return kept, dropped


@pytest.fixture
def values():
    found = (10 ** RNG.uniform(-7, 0, (3, 20, 30))).astype(np.float32)
    found[RNG.random(found.shape) < 0.1] = 0
    return found


def test_counts(values):
    stays = RNG.random(values.shape) < 0.4
    found = Distribution.of([(values, stays)])
    assert (found.kept, found.dropped) == plain(values, stays)
    assert found.idle == np.count_nonzero(values == 0)
    assert sum(found.kept) + sum(found.dropped) + found.idle == values.size
    assert len(found.exponents) == len(found.kept) + 1


def test_blocks_are_counted_as_one(values):
    stays = RNG.random(values.shape) < 0.4
    parts = [(values[:, part], stays[:, part]) for part in (slice(0, 7), slice(7, 20))]
    assert Distribution.of(parts) == Distribution.of([(values, stays)])


@pytest.mark.parametrize("threads", [1, 3])
def test_large_weights_are_counted_in_parts(monkeypatch, values, threads):
    stays = RNG.random(values.shape) < 0.4
    whole = Distribution.of([(values, stays)])
    monkeypatch.setattr("onnx_sipp.threads._PART", 200)
    assert Distribution.of([(values, stays)], threads) == whole


def test_the_cut_parts_the_kept_if_only_sensitivity_counts():
    values = (10 ** RNG.uniform(-5, 0, (1, 50, 100))).astype(np.float32)
    stays = values > np.quantile(values, 0.7)
    found = Distribution.of([(values, stays)])
    edge = np.log10(np.sort(values, axis=None)[-np.count_nonzero(stays)])
    assert abs(found.cut - edge) < 0.02  # bins are a tenth wide


@pytest.mark.parametrize("keep", [0, 3])
def test_no_cut(keep):
    """Where none stay, or idle ones too."""
    values, stays = np.array([[[0.5, 0.1, 0, 0]]]), np.arange(4)[None, None] < keep
    assert Distribution.of([(values, stays)]).cut is None


def test_every_weight_has_its_distribution_and_curve():
    report = prune(mlp(), DATA, sparsity=0.5).report
    for layer in report.layers:
        found = layer.sensitivities
        assert sum(found.kept) + sum(found.dropped) + found.idle == layer.parameters
        assert sum(found.kept) == layer.parameters - layer.zeros
        curve = layer.curve
        assert curve.sparsities[0] == 0
        assert curve.sparsities[-1] == 1
        assert curve.errors == sorted(curve.errors)
        assert curve.errors[0] == 0
        assert curve.errors[-1] <= 1
    steps = report.steps
    assert [step.layers for step in steps] == [[], ["first"], ["second"], []]


def test_no_curve_where_the_budget_is_another():
    report = prune(mlp(), DATA, sparsity=0.5, method="sipp-det").report
    assert [layer.curve for layer in report.layers] == [None, None]
    assert all(layer.sensitivities for layer in report.layers)
