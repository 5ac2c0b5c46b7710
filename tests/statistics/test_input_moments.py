"""H in all its forms, against numpy in float64."""

import numpy as np
import pytest

from onnx_sipp.statistics.input_moments import Moments


def factor(count, fan_in=12):
    return np.random.default_rng(0).standard_normal((2, fan_in, count), np.float32)


@pytest.mark.parametrize("count", [0, 1, 5, 12, 30])
def test_inverse_diagonal(count):
    f = factor(count)
    shift = np.random.default_rng(1).uniform(0.1, 2.0, (2, 12))
    h = f.astype(np.float64) @ f.transpose(0, 2, 1)
    expected = [np.diag(np.linalg.inv(h[g] + np.diag(shift[g]))) for g in range(2)]
    for made in (Moments(factor=f), Moments(h)):
        np.testing.assert_allclose(made.inverse_diagonal(shift), expected, rtol=1e-5)


def test_inverse_diagonal_without_a_large_matrix():
    class Small(Moments):
        @property
        def dense(self):
            raise AssertionError("H is not needed")

    assert Small(factor=factor(5)).inverse_diagonal(np.ones((2, 12))).shape == (2, 12)


def test_inverse_diagonal_of_the_unseen():
    found = Moments(isotropic=(2, 3)).inverse_diagonal(np.array([[1.0, 3.0, 1.0], [3.0] * 3]))
    np.testing.assert_allclose(found, [[0.5, 0.25, 0.5], [0.25] * 3])
