"""The refit against numpy's least squares, neuron by neuron."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import layer, mixed_inputs, regression

from onnx_sipp.calibration.multiplying import RuntimeMultiplier
from onnx_sipp.pruning.compensation import refit
from onnx_sipp.statistics.gram import WIDE


def direct(problem, weight, kept, damping):
    """Least squares of every neuron on its own, with damping as extra rows."""
    result = np.zeros(weight.shape)
    for group, out in np.ndindex(weight.shape[:2]):
        gram, mask = problem.gram[group], kept[group, out]
        shift = damping * np.trace(gram) / len(gram)
        # (H + λh I) ŵ = b + λh w on the mask; least squares also solves it where H is singular.
        left = gram + shift * np.eye(len(gram))
        right = problem.cross[group, out] + shift * weight[group, out]
        solution = np.linalg.lstsq(left[np.ix_(mask, mask)], right[mask])[0]
        result[group, out, mask] = solution
    return result


def solve(problem, weight, kept, damping=0.05, **given):
    given = {"steps": 400, "tolerance": 1e-9} | given
    return refit(problem, weight, kept, damping=damping, **given)


@given(st.integers(0, 999), st.floats(1e-3, 2))
@settings(deadline=None, max_examples=30)
def test_masked_least_squares(seed, damping):
    problem, weight = layer(seed, (2, 3, 7), 40)
    kept = np.random.default_rng(seed).random(weight.shape) < 0.5
    found = solve(problem, weight, kept, damping)
    expected = direct(problem, weight, kept, damping)
    np.testing.assert_allclose(found.weight, expected, rtol=1e-6, atol=1e-6)
    assert np.all(found.weight[~kept] == 0)
    np.testing.assert_allclose(found.errors, problem.errors(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dampings", [(0.01, 0.1, 1.0, 0.01, 0.5), (0.2, 0.2, 0.2, 0.2, 3.0)])
def test_every_neuron_may_have_a_damping_of_its_own(dampings):
    problem, weight = layer(2, (2, 5, 7), 40)
    kept = np.random.default_rng(2).random(weight.shape) < 0.5
    found = solve(problem, weight, kept, np.array(dampings))
    for out, damping in enumerate(dampings):
        alone = solve(problem, weight, kept, damping)
        np.testing.assert_allclose(found.weight[:, out], alone.weight[:, out], rtol=1e-6, atol=1e-8)


def test_it_is_least_squares_on_the_data():
    """The same from the samples themselves: damping is rows √(λh) (ŵ − w) more."""
    rng = np.random.default_rng(1)
    inputs = mixed_inputs(rng, 1, 6, 50)
    targets, weight = rng.standard_normal((1, 2, 50)), rng.standard_normal((1, 2, 6))
    problem = regression(inputs, targets)
    kept = np.array([[[1, 1, 0, 1, 0, 1], [0, 1, 1, 0, 1, 0]]], bool)
    found = solve(problem, weight, kept, 0.1).weight
    ridge = np.sqrt(0.1 * np.trace(problem.gram[0]) / 6)
    for out in range(2):
        mask = kept[0, out]
        design = np.vstack([inputs[0, mask].T / np.sqrt(50), ridge * np.eye(int(mask.sum()))])
        values = np.concatenate([targets[0, out] / np.sqrt(50), ridge * weight[0, out, mask]])
        np.testing.assert_allclose(
            found[0, out, mask], np.linalg.lstsq(design, values)[0], rtol=1e-6
        )


@pytest.mark.parametrize("threads", [1, 2])
def test_h_is_held_once_by_whom_it_is_multiplied(threads):
    held = []

    class Counting(RuntimeMultiplier):
        def hold(self, matrix):
            held.append(matrix.shape)
            return super().hold(matrix)

    problem, weight = layer(4, (2, 9, WIDE), 600)
    kept = np.random.default_rng(4).random(weight.shape) < 0.4
    given = {"tolerance": 1e-6, "threads": threads}
    expected = solve(problem, weight, kept, 0.1, **given)
    moments = replace(problem.moments, multiplier=Counting("CPUExecutionProvider"))
    found = solve(replace(problem, moments=moments), weight, kept, 0.1, **given)
    assert held == [(WIDE, WIDE)] * 2
    np.testing.assert_allclose(found.weight, expected.weight, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.errors, expected.errors, rtol=1e-4)


def test_wide_layers_in_float32():
    problem, weight = layer(2, (1, 3, WIDE), 600)
    kept = np.random.default_rng(2).random(weight.shape) < 0.4
    found = solve(problem, weight, kept, 0.1, tolerance=1e-6)
    expected = direct(problem, weight, kept, 0.1)
    np.testing.assert_allclose(found.weight, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.errors, problem.errors(found.weight), rtol=1e-4)
    assert np.all(found.weight[~kept] == 0)


def test_a_warm_start_ends_at_the_same_place():
    problem, weight = layer(3, (2, 3, 8))
    kept = np.random.default_rng(3).random(weight.shape) < 0.5
    cold = solve(problem, weight, kept)
    elsewhere = np.random.default_rng(4).standard_normal(weight.shape)
    warm = solve(problem, weight, kept, start=elsewhere)
    np.testing.assert_allclose(warm.weight, cold.weight, atol=1e-6)
    # From the answer, no step is needed.
    still = solve(problem, weight, kept, start=cold.weight, steps=0)
    np.testing.assert_allclose(still.weight, cold.weight, rtol=1e-12)
    np.testing.assert_allclose(still.errors, cold.errors, rtol=1e-6)


def damped_error(problem, weight, found, damping):
    shift = damping * np.einsum("gff->g", problem.gram) / weight.shape[-1]
    return problem.errors(found) + shift[:, None] * ((found - weight) ** 2).sum(axis=-1)


def test_every_step_helps():
    problem, weight = layer(5, (1, 4, 12), correlation=2)
    kept = np.random.default_rng(5).random(weight.shape) < 0.5
    before = damped_error(problem, weight, np.where(kept, weight, 0), 0.05)
    for steps in range(1, 8):
        found = solve(problem, weight, kept, steps=steps, tolerance=0)
        after = damped_error(problem, weight, found.weight, 0.05)
        assert np.all(after <= before + 1e-12)
        # What is reported goes with what is returned, also when it stops early.
        np.testing.assert_allclose(found.errors, problem.errors(found.weight), rtol=1e-8)
        before = after


def test_fewer_samples_than_inputs():
    problem, weight = layer(6, (1, 3, 20), count=5)
    assert np.linalg.matrix_rank(problem.gram[0]) == 5
    kept = np.random.default_rng(6).random(weight.shape) < 0.6
    found = solve(problem, weight, kept, 1e-2)
    np.testing.assert_allclose(found.weight, direct(problem, weight, kept, 1e-2), atol=1e-5)


@pytest.mark.parametrize("fan_in", [9, WIDE])
def test_dead_inputs_keep_their_weights(fan_in):
    rng = np.random.default_rng(7)
    inputs = mixed_inputs(rng, 2, fan_in, 50)
    inputs[:, 1] = 0
    inputs[1] = 0  # the whole group is dead
    weight = rng.standard_normal((2, 3, fan_in)).astype(np.float32)
    problem = regression(inputs, weight @ inputs)
    kept = rng.random(weight.shape) < 0.5
    kept[:, 0, 1] = True
    found = solve(problem, weight, kept, tolerance=1e-5)
    assert np.all(np.isfinite(found.weight))
    plain = np.where(kept, weight, 0)
    np.testing.assert_allclose(found.weight[:, :, 1], plain[:, :, 1], rtol=1e-5)
    np.testing.assert_allclose(found.weight[1], plain[1], rtol=1e-5)
    np.testing.assert_array_equal(found.errors[1], 0)


def test_nothing_kept_and_everything_kept():
    problem, weight = layer(8)
    nothing = solve(problem, weight, np.zeros(weight.shape, bool))
    assert np.all(nothing.weight == 0)
    np.testing.assert_allclose(nothing.errors, problem.power)
    # The dense weight already has no error.
    all_of_it = solve(problem, weight, np.ones(weight.shape, bool))
    np.testing.assert_allclose(all_of_it.weight, weight, atol=1e-9)
    np.testing.assert_allclose(all_of_it.errors, 0, atol=1e-9)


@pytest.mark.parametrize("fan_in", [16, WIDE])
def test_blocks_and_threads_change_nothing(fan_in, monkeypatch):
    problem, weight = layer(9, (2, 7, fan_in), 400)
    kept = np.random.default_rng(9).random(weight.shape) < 0.5
    whole = solve(problem, weight, kept, tolerance=1e-7)
    monkeypatch.setattr("onnx_sipp.pruning.compensation._BLOCK_ELEMENTS", 2 * fan_in)
    one, two = (solve(problem, weight, kept, threads=n, tolerance=1e-7) for n in (1, 2))
    np.testing.assert_array_equal(one.weight, two.weight)
    np.testing.assert_array_equal(one.errors, two.errors)
    np.testing.assert_allclose(one.weight, whole.weight, rtol=1e-3, atol=1e-5)


def test_wishes_are_what_a_weight_would_become_alone():
    """One exact step along a dropped weight, the others held still."""
    problem, weight = layer(3, (2, 4, 9))
    kept = np.random.default_rng(0).random(weight.shape) < 0.5
    solution = refit(problem, weight, kept, damping=0.1, steps=40, with_wishes=True)
    assert np.all(solution.wishes[kept] == 0)
    shift = 0.1 * np.einsum("gff->g", problem.gram) / 9

    def objective(candidate):
        pull = shift[:, None] * np.sum((candidate - weight) ** 2, axis=-1)
        return problem.errors(candidate) + pull

    for group, out, place in zip(*np.nonzero(~kept), strict=True):
        trials = []
        for factor in (0.9, 1.0, 1.1):
            moved = solution.weight.copy()
            moved[group, out, place] = factor * solution.wishes[group, out, place]
            trials.append(objective(moved)[group, out])
        assert trials[1] <= min(trials[0], trials[2])
    assert refit(problem, weight, kept, damping=0.1).wishes is None
