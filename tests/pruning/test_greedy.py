"""The exact greedy order against one that refits from scratch for every removal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import layer, mixed_inputs, regression

from onnx_sipp.pruning.compensation import refit
from onnx_sipp.pruning.greedy import greedy_costs


def damped_loss(gram, cross, old, shift, active):
    """Least of ŵᵀHŵ − 2 ŵᵀb + λh ‖ŵ − w‖² over the weights that are active."""
    left = (gram + shift * np.eye(len(gram)))[np.ix_(active, active)]
    right = (cross + shift * old)[active]
    return shift * old @ old - right @ np.linalg.solve(left, right)


def slow_costs(problem, weight, damping):
    costs = np.zeros(weight.shape)
    for group, out in np.ndindex(weight.shape[:2]):
        gram, cross, old = problem.gram[group], problem.cross[group, out], weight[group, out]
        shift = damping * np.trace(gram) / len(gram)
        active = list(np.flatnonzero(old))
        loss, worst = damped_loss(gram, cross, old, shift, active), 0.0
        while active:
            losses = [
                damped_loss(gram, cross, old, shift, [a for a in active if a != gone])
                for gone in active
            ]
            best = int(np.argmin(losses))
            worst = max(worst, losses[best] - loss)
            loss = losses[best]
            costs[group, out, active.pop(best)] = worst
    return costs


@given(st.integers(0, 999), st.floats(0.01, 1))
@settings(deadline=None, max_examples=20)
def test_costs_are_those_of_refitting_from_scratch(seed, damping):
    problem, weight = layer(seed, (2, 3, 6), 50, correlation=1)
    weight = np.where(np.random.default_rng(seed).random(weight.shape) < 0.2, 0, weight)
    costs = greedy_costs(problem, weight, damping=damping, threads=1)
    assert costs.dtype == np.float32
    expected = slow_costs(problem, weight, damping)
    np.testing.assert_allclose(costs, expected, rtol=1e-3, atol=1e-4)
    assert np.all(costs[weight == 0] == 0)


@pytest.mark.parametrize("keep", [1, 4, 9])
def test_costs_add_up_to_the_rise_of_the_error(keep):
    """Nearly unrelated inputs: no removal makes a later one cheaper."""
    problem, weight = layer(2, (1, 5, 12), 4000, correlation=0.1)
    costs = greedy_costs(problem, weight, damping=1e-6, threads=1)
    assert np.unique(costs).size == costs.size  # a cost held up by an earlier one would repeat it
    order = np.argsort(costs, axis=-1)
    kept = np.ones(weight.shape, bool)
    np.put_along_axis(kept, order[..., :-keep], values=False, axis=-1)
    found = refit(problem, weight, kept, damping=1e-6, steps=200, tolerance=1e-9)
    np.testing.assert_allclose(np.where(kept, 0, costs).sum(axis=-1), found.errors, rtol=1e-3)


def test_a_copy_of_an_input_is_removed_for_free():
    rng = np.random.default_rng(1)
    inputs = mixed_inputs(rng, 1, 5, 400)
    inputs[:, 3] = inputs[:, 0]
    weight = rng.choice([-1.0, 1.0], (1, 3, 5)) * (1 + rng.random((1, 3, 5)))
    weight[..., 3] = weight[..., 0]
    costs = greedy_costs(regression(inputs, weight @ inputs), weight, damping=1e-4, threads=1)
    pair = np.sort(costs[..., [0, 3]], axis=-1)
    assert np.all(pair[..., 0] < 1e-2)
    assert np.all(pair[..., 1] > 0.3)


def test_dead_inputs_cost_nothing():
    rng = np.random.default_rng(2)
    inputs = mixed_inputs(rng, 2, 5, 60)
    inputs[0, 2] = 0
    inputs[1] = 0
    weight = rng.standard_normal((2, 3, 5))
    costs = greedy_costs(regression(inputs, weight @ inputs), weight, damping=0.01, threads=1)
    assert np.all(np.isfinite(costs))
    # Only what damping would have held on to.
    assert np.all(costs[0, :, 2] <= 0.05 * weight[0, :, 2] ** 2)
    np.testing.assert_allclose(np.sort(costs[1]), np.sort(0.01 * weight[1] ** 2), rtol=1e-5)


def test_threads_change_nothing():
    problem, weight = layer(3, (2, 9, 10))
    one, two = (greedy_costs(problem, weight, damping=0.05, threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one, two)
