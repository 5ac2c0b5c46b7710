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


def test_damping_is_relative_to_the_mean_power():
    found = regression([[1, 2, 3], [10, 20, 30]])
    np.testing.assert_allclose(found.scale, [[2] * 3, [20] * 3])


def test_of_a_very_small_input_it_is_relative_to_its_own():
    found = regression([[1e-6, 1, 5]])
    np.testing.assert_allclose(found.scale, [[1e-4, 2, 2]], rtol=1e-5)


def test_dead_inputs_are_damped_like_the_others():
    np.testing.assert_allclose(regression([[0, 1, 5], [0, 0, 0]]).scale, [[2] * 3, [1] * 3])


def test_h_with_damping():
    problem = regression([[1e-6, 1, 5]])
    h, shift = problem.damped(0, 0.5)
    np.testing.assert_allclose(shift, 0.5 * problem.scale[0])
    np.testing.assert_allclose(h, np.diag(np.array([1e-6, 1, 5]) + shift))
    np.testing.assert_allclose(problem.gram[0], np.diag([1e-6, 1, 5]))
