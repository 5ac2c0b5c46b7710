"""Sums that are taken in float32 where it has room for them."""

import numpy as np
import pytest

from onnx_sipp.statistics.totals import square_sums, sums


@pytest.mark.parametrize(("total", "power"), [(sums, 1), (square_sums, 2)])
@pytest.mark.parametrize("large", [[], [1], [0, 1, 2]])
def test_they_are_those_of_float64(total, power, large):
    """Also if only some of them are too large for float32."""
    values = np.random.default_rng(0).random((3, 7), np.float32)
    values[large] *= np.float32(3e38)
    found = total(values)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.sum(values.astype(np.float64) ** power, -1), rtol=1e-5)
