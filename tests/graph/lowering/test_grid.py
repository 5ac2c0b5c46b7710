"""Levels of quantised weights: nearest, zero and nothing else at the zero point."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_sipp.graph.lowering.grid import Grid, encode_float, spread
from onnx_sipp.graph.node import NotPrunable

TYPES = ["int8", "uint8", "int4", "uint4", "int16", "uint16"]


def numpy_type(name):
    return np.dtype(getattr(ml_dtypes, name) if name.endswith("4") else name)


def grid_of(name, zero_point, scale=0.5, *, stored=True, size=1):
    dtype = numpy_type(name)
    return Grid(np.full(size, scale, np.float32), np.full(size, zero_point), dtype, stored)


@given(
    name=st.sampled_from(TYPES),
    value=st.floats(-1e6, 1e6, width=32),
    scale=st.floats(2**-10, 2**10, width=32),
    share=st.floats(0, 1),
)
def test_the_nearest_level(name, value, scale, share):
    info = ml_dtypes.iinfo(numpy_type(name))
    low, high = int(info.min), int(info.max)
    zero = low + round(share * (high - low))
    grid = grid_of(name, zero, scale)
    values = np.array([value], np.float32)
    stored = grid.encode(values, numpy_type(name))
    assert stored.dtype == numpy_type(name)
    level = int(stored[0])
    assert low <= level <= high
    assert (level == zero) == (value == 0)
    if value != 0:
        steps = float(values[0]) / float(np.float32(scale))
        best = min(max(steps + zero, low), high)
        assert abs(level - best) <= 0.5 or abs(level - zero) == 1
        if zero not in (low, high):
            assert (level > zero) == (value > 0)
    # What is stored can be read, and stored again, without change.
    back = grid.decode(stored)
    np.testing.assert_array_equal(grid.encode(back, numpy_type(name)), stored)


def test_decode_is_what_the_operator_computes():
    grid = Grid(np.array([0.1, 3], np.float32), np.array([3, -7]), np.dtype(np.int8), stored=True)
    levels = np.array([-128, 127], np.int8)
    expected = np.array([-131, 134], np.float32) * np.array([0.1, 3], np.float32)
    np.testing.assert_array_equal(grid.decode(levels), expected)


@pytest.mark.parametrize(("zero", "expected"), [(0, 1), (255, 254), (7, 6)])
def test_the_other_side_where_the_type_ends(zero, expected):
    """A small negative value is the level below zero; where there is none, the one above."""
    stored = grid_of("uint8", zero).encode(np.array([-0.01], np.float32), np.dtype(np.uint8))
    assert stored.tolist() == [expected]


def test_a_negative_scale():
    grid = grid_of("int8", 0, -0.5)
    stored = grid.encode(np.array([0.01, -0.01, 2], np.float32), np.dtype(np.int8))
    assert stored.tolist() == [-1, 1, -4]


def test_a_scale_of_zero_stores_zeros():
    grid = grid_of("int8", 5, 0.0, size=2)
    assert grid.encode(np.array([0, 0], np.float32), np.dtype(np.int8)).tolist() == [5, 5]
    assert grid.decode(np.array([9, 5], np.int8)).tolist() == [0, 0]


def test_real_values_on_a_grid():
    grid = grid_of("int8", 3, 0.25, stored=False, size=4)
    values = np.array([0.3, 0.01, 0, -90], np.float32)
    assert grid.decode(values).tolist() == [0.25, 0, 0, -32.75]
    stored = grid.encode(values, np.dtype(np.float32))
    assert stored.tolist() == [0.25, 0.25, 0, -32.75]
    np.testing.assert_array_equal(grid.decode(stored), stored)


def test_a_part_of_a_grid():
    grid = Grid(np.arange(6.0).reshape(2, 3), np.arange(6).reshape(2, 3), np.dtype(np.int8), True)
    part = grid.at(np.array([4, 1]))
    assert part.scale.tolist() == part.zero_point.tolist() == [4, 1]


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_other_floats(name):
    """Clipped, rounded, and zero only for zero."""
    dtype = np.dtype(getattr(ml_dtypes, name) if name == "bfloat16" else name)
    values = np.array([0, 1e-45, -1e-45, 3e38, -3e38, 1.00390625], np.float32)
    found = encode_float(values, dtype)
    assert found.dtype == dtype
    assert np.isfinite(found.astype(np.float64)).all()
    np.testing.assert_array_equal(np.sign(found.astype(np.float64)), np.sign(values))
    assert float(found[5]) == float(np.asarray(values[5], dtype))


@pytest.mark.parametrize(
    ("values", "axis", "block", "expected"),
    [
        (2.0, 1, 0, [[2, 2, 2], [2, 2, 2]]),
        ([2.0], 1, 0, [[2, 2, 2], [2, 2, 2]]),
        ([1, 2, 3], 1, 0, [[1, 2, 3], [1, 2, 3]]),
        ([1, 2, 3], -1, 0, [[1, 2, 3], [1, 2, 3]]),
        ([1, 2], 0, 0, [[1, 1, 1], [2, 2, 2]]),
        ([[1, 2], [3, 4]], 1, 2, [[1, 1, 2], [3, 3, 4]]),
        ([[1, 2, 3]], 0, 2, [[1, 2, 3], [1, 2, 3]]),
    ],
)
def test_spread(values, axis, block, expected):
    assert spread(np.array(values), (2, 3), axis, block).tolist() == expected


@pytest.mark.parametrize(("values", "block"), [([1, 2], 0), ([[1, 2]], 1)])
def test_parameters_that_do_not_fit(values, block):
    with pytest.raises(NotPrunable, match="do not fit"):
        spread(np.array(values), (2, 3), 1, block)
