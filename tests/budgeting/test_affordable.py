"""Budgets are tried out where that costs less than all else."""

import numpy as np
import pytest
from small_models import mlp

from onnx_sipp import prune
from onnx_sipp.budgeting import affordable
from onnx_sipp.refitting.refitter import Refitter

ERROR_ONLY = "so the budget is `error`: by the layers' own errors alone"


def pruned(**options):
    data = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    return prune(mlp(), data, sparsity=0.5, threads=1, **options).report


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ("_RUNS_LIMIT", "to try every layer alone would take 240 passes through a large model"),
        ("_REFITS_LIMIT", "layers are so wide that to try budgets would take longer than all else"),
    ],
)
def test_budgets_are_not_tried_where_that_costs_too_much(monkeypatch, limit, why):
    tried = pruned()
    assert len(tried.budgets) == 3
    assert not any(ERROR_ONLY in told for told in tried.warnings)
    monkeypatch.setattr(affordable, limit, 1)
    report = pruned()
    assert report.budgets == {}
    assert f"{why}, {ERROR_ONLY}" in report.warnings


@pytest.mark.parametrize("limit", ["_RUNS_LIMIT", "_REFITS_LIMIT"])
def test_who_asks_for_outputs_to_be_looked_at_waits_for_it(monkeypatch, limit):
    looked_at = []
    impact = Refitter.impact
    monkeypatch.setattr(
        Refitter, "impact", lambda self, made: looked_at.append(tuple(made)) or impact(self, made)
    )
    monkeypatch.setattr(affordable, limit, 1)
    report = pruned(allocation="impact")
    assert not any(ERROR_ONLY in told for told in report.warnings)
    assert sorted(looked_at) == [(0,), (0,), (1,), (1,)]  # each layer in two ways


def test_made_up_samples_are_worth_less(monkeypatch):
    monkeypatch.setattr(affordable, "_MADE_UP_RUNS_LIMIT", 1)
    report = prune(mlp(), sparsity=0.5, threads=1, num_samples=8).report
    assert any(ERROR_ONLY in told for told in report.warnings)
