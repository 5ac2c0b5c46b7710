"""Scores of weights."""

import numpy as np
from layer_statistics import some_layers

from onnx_sipp.pruning.importance import IMPORTANCES


def test_importances():
    layer = some_layers()[0]
    rng = np.random.default_rng(0)
    scores = {name: needs.score(layer, rng) for name, needs in IMPORTANCES.items()}
    np.testing.assert_array_equal(scores["magnitude"], np.abs(layer.weight))
    np.testing.assert_allclose(
        scores["wanda"], np.abs(layer.weight) * np.sqrt(layer.second_moment), rtol=1e-6
    )
    assert scores["sensitivity-max"] is layer.sensitivity_max
    assert scores["sensitivity-mean"] is layer.sensitivity_mean
    for score in scores.values():
        assert score.shape == layer.weight.shape
        assert np.all(score >= 0)
