"""The compiled (max, ×) product against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_sipp.statistics.max_product import max_product


def plain(left, right, weight, out):
    products = left[:, :, None, :] * right[:, None, :, :]
    positive, negative = np.split(products.max(axis=3, initial=0), 2, axis=1)
    return np.maximum(out, np.where(weight > 0, positive, negative))


@given(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 20), st.integers(0, 140), st.integers(0, 9)
)
@settings(deadline=None)
def test_equals_numpy(groups, rows, columns, patches, seed):
    rng = np.random.default_rng(seed)
    left = rng.random((groups, 2 * rows, patches), np.float32)
    right = rng.random((groups, columns, patches), np.float32)
    weight = rng.integers(-1, 2, (groups, rows, columns)).astype(np.float32)
    out = rng.random((groups, rows, columns), np.float32) * np.float32(0.9)
    expected = plain(left, right, weight, out)
    max_product(left, right, weight, out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("patches", [1, 3, 4, 63, 64, 65, 129])
def test_every_patch_counts(patches, sign):
    """The largest product may stand in any patch, also in the last of an incomplete block."""
    weight = np.full((1, 2, 2), sign, np.float32)
    row = 1 if sign > 0 else 3
    for place in range(patches):
        left, right = np.zeros((1, 4, patches), np.float32), np.zeros((1, 2, patches), np.float32)
        left[0, row, place], right[0, 0, place] = 2, 3
        out = np.zeros((1, 2, 2), np.float32)
        max_product(left, right, weight, out)
        np.testing.assert_array_equal(out, [[[0, 0], [6, 0]]])


def test_leftovers_of_the_block_before_do_not_count():
    left, right = np.ones((1, 2, 65), np.float32), np.ones((1, 1, 65), np.float32)
    right[0, 0, 1:4] = 100
    left[0, :, :64] = 0
    out = np.zeros((1, 1, 1), np.float32)
    max_product(left, right, np.ones_like(out), out)
    assert out[0, 0, 0] == 1


def test_any_memory_order():
    rng = np.random.default_rng(0)
    left = rng.random((2, 50, 8), np.float32).transpose(0, 2, 1)
    right = rng.random((50, 2, 6), np.float32).transpose(1, 2, 0)
    weight = rng.standard_normal((6, 4, 2)).astype(np.float32).T
    out = np.zeros((2, 4, 6), np.float32)
    expected = plain(left, right, weight, out)
    max_product(left, right, weight, out)
    np.testing.assert_array_equal(out, expected)
