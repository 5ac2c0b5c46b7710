"""The curve of a survey, as it is shown."""

import numpy as np
import pytest

from onnx_sipp.pruning.error_budget import condensed, relative_error
from onnx_sipp.pruning.survey import Survey, curve_of

COSTS = np.sort(np.random.default_rng(1).random(400) ** 3)


def test_points_are_those_of_the_budget():
    survey = Survey(COSTS, None, 1.5 * COSTS.sum(), 400)
    curve = curve_of(survey)
    for sparsity, error in zip(curve.sparsities, curve.errors, strict=True):
        keep = round((1 - sparsity) * 400)
        assert error**2 == pytest.approx(relative_error(COSTS, survey.power, keep), rel=1e-9)


def test_some_may_stand_for_all():
    many = np.repeat(COSTS, 100)
    means, times = condensed(COSTS, many.size)
    whole = curve_of(Survey(many, None, many.sum(), many.size))
    some = curve_of(Survey(means, times, many.sum(), many.size))
    assert np.allclose(whole.errors, some.errors, rtol=0.02)


def test_an_error_is_at_most_all():
    assert max(curve_of(Survey(COSTS, None, 0.1 * COSTS.sum(), 400)).errors) == 1
