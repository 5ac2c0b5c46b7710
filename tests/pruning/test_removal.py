"""Removal in a few steps."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import layer, regression

from onnx_sipp.pruning.compensation import refit
from onnx_sipp.pruning.removal import gradual_costs, gradual_mask
from onnx_sipp.pruning.selection import top, top_rows


def with_zeros(weight, seed, share=0.3):
    return np.where(np.random.default_rng(seed).random(weight.shape) < share, 0, weight)


GENTLY = (0.2, 0.4, 0.6, 0.8, 1)


def gradual(problem, weight, keep, *, by_neuron=False, schedule=GENTLY, threads=1):
    def pick(score, count):
        if not by_neuron:
            return top(score, np.abs(weight), count)
        counts = np.full(weight.shape[:2], count // (weight.size // weight.shape[-1]))
        return top_rows(score, np.abs(weight), counts)

    return gradual_mask(
        problem, weight, keep, pick,
        gain=np.ones(weight.shape[:2]), damping=0.05, schedule=schedule, steps=8, threads=threads,
    )  # fmt: skip


@given(st.integers(0, 999), st.floats(0, 1.1))
@settings(deadline=None, max_examples=30)
def test_masks_are_exact(seed, share):
    problem, weight = layer(seed, (2, 4, 7), 40)
    weight = with_zeros(weight, seed)
    weight[0, 1] = 0
    keep = round(share * weight.size)
    kept, refitted = gradual(problem, weight, keep)
    assert kept.sum() == min(keep, np.count_nonzero(weight))
    assert np.all(weight[kept] != 0)
    assert refitted.shape == weight.shape


def test_neurons_keep_the_same_share():
    problem, weight = layer(0, (2, 5, 12))
    weight[0] *= 100
    kept, _ = gradual(problem, weight, 40, by_neuron=True)
    np.testing.assert_array_equal(kept.sum(axis=-1), np.full((2, 5), 4))
    kept, _ = gradual(problem, weight, 40)
    assert kept[0].sum() > 35


def test_stages_beat_a_single_one():
    """After one of two like inputs has gone, the other one counts for both."""
    better = []
    for seed in range(5):
        problem, weight = layer(seed, (1, 8, 24), correlation=2)
        once, gently = (
            gradual(problem, weight, 40, schedule=schedule)[0] for schedule in ((1,), GENTLY)
        )
        first, second = (
            refit(problem, weight, kept, damping=1e-3, steps=100).errors.sum()
            for kept in (once, gently)
        )
        better.append(second < first)
    assert sum(better) >= 4


def test_what_has_gone_may_come_back():
    """Two inputs are alike; the mask of magnitudes drops the one that speaks for both."""
    better, changed = [], False
    for seed in range(5):
        problem, weight = layer(seed, (1, 8, 24), correlation=2)
        once, again = (
            gradual(problem, weight, 40, schedule=schedule)[0] for schedule in ((1,), (1, 1, 1))
        )
        first, second = (
            refit(problem, weight, kept, damping=1e-3, steps=100).errors.sum()
            for kept in (once, again)
        )
        changed = changed or bool((once & ~again).any())
        better.append(second <= first)
    assert changed
    assert sum(better) >= 4


def test_neurons_that_are_zero_already_do_not_change_the_others():
    """The stages are of the weights that are there, or the first ones would take nothing."""
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((1, 12, 200)) + 2 * rng.standard_normal((1, 1, 200))
    weight = rng.standard_normal((1, 6, 12))
    padded = np.concatenate([weight, np.zeros((1, 12, 12))], axis=1)
    problem, more = (regression(inputs, matrix @ inputs) for matrix in (weight, padded))
    alone, _ = gradual(problem, weight, 20)
    among, _ = gradual(more, padded, 20)
    np.testing.assert_array_equal(among[:, :6], alone)
    assert not among[:, 6:].any()
    costs, costs_among = (
        gradual_costs(*pair, damping=0.05, steps=8) for pair in ((problem, weight), (more, padded))
    )
    np.testing.assert_allclose(costs_among[:, :6], costs, rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_costs_are_the_rise_of_the_error(seed):
    """Between the points of the curve, the lowest costs add up to the rise of the error."""
    problem, weight = layer(seed, (1, 6, 40), 4000, correlation=0.05)
    costs = gradual_costs(problem, weight, damping=1e-6, steps=60)
    assert costs.dtype == np.float32
    assert np.all(costs > 0)
    for share in (0.7, 0.34, 0.11, 0.0):
        kept = top(costs, np.abs(weight), round(share * weight.size))
        error = refit(problem, weight, kept, damping=1e-6, steps=60).errors.sum()
        rise = costs[~kept].sum(dtype=np.float64)
        # Costs never fall from one step to the next, so that they may say too much.
        assert error * 0.99 <= rise <= error * 1.3


def test_costs_are_nested_with_the_order_of_removal():
    """A weight that went in an earlier step never costs more than one that went later."""
    problem, weight = layer(5, (2, 5, 20), correlation=1)
    weight = with_zeros(weight, 5)
    costs = gradual_costs(problem, weight, damping=0.05, steps=8)
    assert np.all(costs[weight == 0] == 0)
    alive = np.count_nonzero(weight)
    scale = np.sqrt(np.einsum("gff->gf", problem.gram))[:, None, :]
    first = refit(problem, weight, weight != 0, damping=0.05, steps=8).weight
    stays = top(np.abs(first) * scale, np.abs(weight), round(0.85 * alive))
    gone = (weight != 0) & ~stays
    assert costs[gone].max() <= costs[stays].min()
    # The rise of a step is shared out by what the weights carry: (w · rms(a))².
    carried = (first * scale)[gone] ** 2
    np.testing.assert_allclose(costs[gone] / costs[gone].sum(), carried / carried.sum(), rtol=1e-4)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_costs_are_in_the_unit_of_the_error(factor):
    """Weights and outputs in other units: the same costs, in the square of those units."""
    problem, weight = layer(7, (2, 4, 12), correlation=1)
    scaled = replace(problem, cross=problem.cross * factor, power=problem.power * factor**2)
    costs = gradual_costs(problem, weight, damping=0.05, steps=8)
    found = gradual_costs(scaled, weight * factor, damping=0.05, steps=8)
    np.testing.assert_allclose(found, costs * np.float32(factor**2), rtol=1e-3)


def test_a_layer_without_inputs_or_weights():
    problem, weight = layer(6)
    nothing = np.zeros(weight.shape)
    assert np.all(gradual_costs(problem, nothing, damping=0.05, steps=8) == 0)
    assert not gradual(problem, nothing, 5)[0].any()
    dead = regression(np.zeros((1, 6, 10)), np.zeros((1, 4, 10)))
    assert np.all(gradual_costs(dead, weight, damping=0.05, steps=8) == 0)
    kept, _ = gradual(dead, weight, 5)
    np.testing.assert_array_equal(kept, top(np.zeros(weight.shape), np.abs(weight), 5))


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr("onnx_sipp.pruning.compensation._BLOCK_ELEMENTS", 20)
    problem, weight = layer(7, (2, 6, 10))
    one, two = (gradual_costs(problem, weight, damping=0.05, steps=8, threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one, two)
    one, two = (gradual(problem, weight, 30, threads=n)[0] for n in (1, 2))
    np.testing.assert_array_equal(one, two)
