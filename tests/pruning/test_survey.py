"""Curves of layers, by which the budget is shared out."""

from dataclasses import replace

import numpy as np
import pytest
from problems import mixed_inputs, regression

from onnx_sipp.pruning import survey as module
from onnx_sipp.pruning.error_budget import error_budget
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.survey import (
    Impact,
    Survey,
    curve_of,
    error_counts,
    importance_of,
    surveys_of,
)


def evidence(seed, shape=(1, 6, 8)):
    rng = np.random.default_rng(seed)
    inputs = mixed_inputs(rng, shape[0], shape[2], 200)
    weight = rng.standard_normal(shape)
    fit = regression(inputs, weight @ inputs)
    return Evidence(weight, np.zeros(shape), fit, None, np.ones(shape[:2]), samples=200)


def test_a_whole_layer():
    layer = evidence(0)
    found = surveys_of(layer, (False, True), 48, 48, 1)
    for way, survey in found.items():
        assert survey.costs.shape == (48,)
        assert np.all(np.diff(survey.costs) >= 0)
        assert survey.times is None
        assert survey.power == pytest.approx(replace(layer, by_neuron=way).power)
    assert not np.allclose(found[False].costs, found[True].costs)


def test_a_layer_without_any_output_errs_by_nothing():
    curve = curve_of(Survey(np.zeros(4), None, 0.0, 4))
    assert set(curve.errors) == {0.0}


@pytest.mark.parametrize("small", [0, 1 << 18])
def test_a_jury_stands_for_its_layer(monkeypatch, small):
    monkeypatch.setattr(module, "_SMALL", small)
    layer = evidence(0)
    (survey,) = surveys_of(layer, (False,), 480, 400, 1).values()
    total = len(survey.costs) if survey.times is None else survey.times.sum()
    assert total == 480
    assert survey.capacity == 400
    (alone,) = surveys_of(layer, (False,), 48, 48, 1).values()
    times = 1 if survey.times is None else survey.times
    assert np.sum(survey.costs * times) == pytest.approx(10 * alone.costs.sum())
    assert survey.power == pytest.approx(10 * alone.power)


def test_counts_are_exact_whatever_stands_for_what(monkeypatch):
    monkeypatch.setattr(module, "_SMALL", 0)
    surveys = [
        surveys_of(evidence(0), (False,), 48, 48, 1)[False],
        surveys_of(evidence(1), (False,), 4800, 4800, 1)[False],
    ]
    for keep in (10, 1000, 4848):
        counts = error_counts(surveys, keep, 0.01)
        assert sum(counts) == keep
        assert all(0 < count <= s.capacity for count, s in zip(counts, surveys, strict=True))
    first = surveys[0]
    plain = error_budget([first.costs], [first.power], [48], 20)
    assert error_counts([first], 20, 0.01) == plain


def test_impacts_weigh_layers():
    surveys = [surveys_of(evidence(seed), (False,), 48, 48, 1)[False] for seed in (0, 1)]
    even = error_counts(surveys, 40, 0.01)
    strong = Impact(by_neuron=False, share=0.5, error=0.9)
    weak = Impact(by_neuron=False, share=0.5, error=1e-4)
    first, mild = (
        error_counts(surveys, 40, 0.01, list(map(importance_of, surveys, impacts)))[0]
        for impacts in ((strong, weak), (strong.mild(), weak.mild()))
    )
    assert first >= mild > even[0]


def test_importance_is_the_loss_at_the_outputs_over_that_of_the_layer():
    """Of four weights two are kept: those that go cost a quarter of the power."""
    survey = Survey(np.array([1.0, 1.0, 2.0, 4.0]), None, power=8.0, capacity=4)
    impact = Impact(by_neuron=True, share=0.5, error=0.6)
    expected = np.log(1 - 0.6) / np.log(1 - 0.25)
    assert importance_of(survey, impact) == pytest.approx(expected)
    assert importance_of(survey, impact.mild()) == pytest.approx(np.sqrt(expected))
    assert not impact.mild().by_neuron
    # The same costs, each of which stands for three weights, of a layer of three times the power.
    many = replace(survey, times=np.full(4, 3), power=24.0, capacity=12)
    assert importance_of(many, impact) == pytest.approx(expected)
    # Who loses all counts as much as one who loses 95 %.
    ruined = replace(impact, error=7.0)
    assert importance_of(survey, ruined) == pytest.approx(np.log(0.05) / np.log(0.75))
    # A layer that loses nothing by itself, and yet does harm, counts very much but not infinitely.
    free = replace(survey, costs=np.array([0.0, 0.0, 2.0, 4.0]))
    assert importance_of(free, impact) == pytest.approx(-np.log(0.4) / 1e-9)
