"""What single candidates go by, from their formulas."""

from dataclasses import replace

import numpy as np
import pytest
from problems import layer, unjudged

from onnx_sipp.pruning.candidates import CANDIDATES
from onnx_sipp.pruning.evidence import damping_for
from onnx_sipp.statistics.input_moments import Moments


def evidence(seed=0, samples=1):
    """A layer with inputs of very different sizes, and few samples, so that damping counts."""
    problem, weight = layer(seed, (2, 4, 12), 40, correlation=2)
    return unjudged(seed, problem, weight, gains=(0.3, 3), samples=samples)


def kept_by(score, keep):
    """The so many largest."""
    kept = np.zeros(score.size, bool)
    kept[np.argsort(-score.ravel())[:keep]] = True
    return kept.reshape(score.shape)


def scores(found):
    """By name, the scores as the methods define them, in plain loops."""
    size = np.abs(found.weight) * found.gain[..., None]
    saliency = np.zeros(found.weight.shape)
    for group, h in enumerate(found.fit.gram):
        damped = h + damping_for(found) * np.diag(h).mean() * np.eye(len(h))
        saliency[group] = size[group] ** 2 / np.diag(np.linalg.inv(damped))
    return {
        "magnitude": size,
        "activation": size * np.sqrt(found.fit.diagonal)[:, None],
        "surgeon": saliency,
        "sipp-det": found.sensitivity,
    }


@pytest.mark.parametrize("name", ["magnitude", "activation", "surgeon", "sipp-det"])
@pytest.mark.parametrize("seed", range(3))
def test_the_largest_scores_stay(name, seed):
    found = evidence(seed)
    score = scores(found)[name]
    for keep in (1, 20, 50, 80):
        kept = CANDIDATES[name](found, keep, 0, 1).kept
        assert np.array_equal(kept, kept_by(score, keep))


def test_a_layer_whose_inputs_are_all_zero_goes_by_magnitude():
    """The surgeon has nothing else to go by; it must not fail either."""
    found = evidence()
    expected = kept_by(scores(found)["magnitude"], 30)
    moments = Moments(np.zeros_like(found.fit.gram))
    found = replace(found, fit=replace(found.fit, moments=moments))
    assert np.array_equal(CANDIDATES["surgeon"](found, 30, 0, 1).kept, expected)


def test_what_no_sample_needed_is_drawn_last_and_large_weights_first():
    """Every neuron has four weights with a sensitivity, and keeps six."""
    found = evidence(4)
    found.sensitivity[..., 4:] = 0
    found.weight[..., 4:] *= np.repeat([1e9, 1e-9], 4)
    found = replace(found, weight=np.abs(found.weight) + 1e-12)
    for seed in range(5):
        kept = CANDIDATES["sipp-rand"](found, 6 * 8, seed, 1).kept
        assert kept[..., :4].all()
        assert np.all(kept[..., 4:8].sum(axis=-1) == 2)
