"""Least squares from sums: what damping is relative to."""

import numpy as np

from onnx_sipp.statistics.input_moments import Moments
from onnx_sipp.statistics.regression import Regression


def regression(powers):
    """Of independent inputs with powers ``[group, fan_in]``, and three neurons."""
    powers = np.array(powers, float)
    blind = Regression.blind(np.ones((len(powers), 3, powers.shape[1])))
    return Regression(
        Moments(np.stack([np.diag(p) for p in powers])), blind.cross, blind.power,
        blind.mean_input, blind.mean_target, centred=False, count=9,
    )  # fmt: skip


def weights(sizes):
    """Of three neurons, ``[group, 3, fan_in]``, all alike but for the sign."""
    sizes = np.array(sizes, float)
    return sizes[:, None, :] * np.array([1, -1, 1])[:, None]


def test_damping_is_relative_to_the_mean_power():
    found = regression([[1, 2, 3], [10, 20, 30]])
    np.testing.assert_allclose(found.scale(weights([[1, 5, 1], [1, 1, 9]])), [[2] * 3, [20] * 3])


def test_a_small_input_with_large_weights_is_in_another_unit():
    """Its damping has about the same weight as that of the others."""
    found = regression([[1e-8, 1, 1]])
    (scale,) = found.scale(weights([[1e4, 1, 1]]))
    np.testing.assert_allclose(scale * [1e8, 1, 1], [30, 2 / 3, 2 / 3])


def test_a_small_input_with_weights_like_others_is_only_quiet():
    """It may be louder on other samples, so its weights are held on to."""
    found = regression([[1e-8, 1, 1]])
    np.testing.assert_allclose(found.scale(weights([[1, 1, 1]])), [[2 / 3] * 3])


def test_dead_inputs_are_damped_like_the_others():
    found = regression([[0, 1, 5], [0, 0, 0]])
    np.testing.assert_allclose(found.scale(weights([[1, 1, 1], [1, 2, 3]])), [[2] * 3, [1] * 3])


def test_h_with_damping():
    problem, old = regression([[1e-8, 1, 5]]), weights([[1e4, 1, 1]])
    h, shift = problem.damped(0, 0.5, old)
    np.testing.assert_allclose(shift, 0.5 * problem.scale(old)[0])
    np.testing.assert_allclose(h, np.diag(np.array([1e-8, 1, 5]) + shift))
    np.testing.assert_allclose(problem.gram[0], np.diag([1e-8, 1, 5]))
