"""Sums come out of a pickle or a copy as they went in, and zeros do not travel."""

import pickle
from copy import deepcopy

import numpy as np
import pytest

from onnx_sipp.statistics.cross import Cross
from onnx_sipp.statistics.gram import VERY_WIDE, Gram

WAYS = [deepcopy, lambda sums: pickle.loads(pickle.dumps(sums))]


def seen(kind, fan_in, patches=3):
    """Sums of some patches."""
    rng = np.random.default_rng(fan_in)
    columns = rng.standard_normal((2, fan_in, patches)).astype(np.float32)
    sums = Gram(2, fan_in) if kind is Gram else Cross(2, 4, fan_in)
    more = () if kind is Gram else (rng.standard_normal((2, 4, patches)).astype(np.float32),)
    sums.update(columns, *more)
    return sums, (columns, *more)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fan_in", [5, VERY_WIDE + 1])
@pytest.mark.parametrize("kind", [Gram, Cross])
def test_sums_arrive_whole(kind, fan_in, way):
    sums, _ = seen(kind, fan_in)
    other = way(sums)
    np.testing.assert_array_equal(other.products, sums.products)
    np.testing.assert_array_equal(other.sums, sums.sums)
    assert other.count == sums.count == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fan_in", [5, VERY_WIDE + 1])
@pytest.mark.parametrize("kind", [Gram, Cross])
def test_what_has_seen_nothing_can_go_on_elsewhere(kind, fan_in, way):
    expected, patches = seen(kind, fan_in)
    empty = way(Gram(2, fan_in) if kind is Gram else Cross(2, 4, fan_in))
    assert empty.products.dtype == expected.products.dtype
    empty.merge(Gram(2, fan_in) if kind is Gram else Cross(2, 4, fan_in))
    empty.update(*patches)
    np.testing.assert_array_equal(empty.products, expected.products)


@pytest.mark.parametrize("empty", [Gram(1, 200), Cross(1, 200, 200)])
def test_zeros_do_not_travel(empty):
    assert len(pickle.dumps(empty)) < 8 * 200 * 10
    assert empty.products.shape == (1, 200, 200)


@pytest.mark.parametrize("kind", [Gram, Cross])
def test_counts_add_up(kind):
    one, _ = seen(kind, 5)
    other, _ = seen(kind, 5, patches=4)
    expected = one.products + other.products
    one.merge(other)
    assert one.count == 7
    np.testing.assert_allclose(one.products, expected)
