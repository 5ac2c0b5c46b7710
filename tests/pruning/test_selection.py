"""Exact selection."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stacks import stacks

from onnx_sipp.pruning.selection import ALLOCATIONS, apportion, kept_only, select, top, top_rows


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@given(stacks(), st.floats(0, 1))
@settings(deadline=None)
def test_counts_are_exact(allocation, layers, share):
    weights, scores = layers
    total = sum(weight.size for weight in weights)
    keep = round(share * total)
    masks = select(scores, weights, keep, allocation)
    nonzero = sum(np.count_nonzero(weight) for weight in weights)
    assert sum(int(mask.sum()) for mask in masks) == min(keep, nonzero)
    for mask, weight in zip(masks, weights, strict=True):
        assert mask.shape == weight.shape
        assert mask.dtype == np.bool_
        assert np.all(weight[mask] != 0), "a stored zero was kept"


def test_top_takes_the_largest():
    scores = np.array([[0.1, 0.9], [0.5, 0.3]])
    mask = top(scores, np.ones((2, 2)), 2)
    np.testing.assert_array_equal(mask, [[False, True], [True, False]])


def test_top_breaks_ties_by_magnitude_then_by_place():
    scores = np.ones(6)
    magnitude = np.array([1.0, 3.0, 2.0, 2.0, 0.0, 2.0])
    np.testing.assert_array_equal(np.flatnonzero(top(scores, magnitude, 3)), [1, 2, 3])


def test_dead_weights_fill_up_by_magnitude():
    scores = np.array([0.0, 0.0, 0.0, 5.0])
    magnitude = np.array([1.0, 3.0, 2.0, 0.1])
    np.testing.assert_array_equal(np.flatnonzero(top(scores, magnitude, 3)), [1, 2, 3])


@pytest.mark.parametrize("kind", ["random", "sorted", "few values", "many zeros", "one value"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9, 1.0])
def test_top_of_many_is_the_end_of_their_order(kind, share):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(50_000).astype(np.float32)
    scores = {
        "random": np.exp(3 * weight),
        "sorted": np.sort(np.abs(weight)),
        "few values": np.floor(3 * np.abs(weight)),
        "many zeros": np.where(weight > 1, weight, 0),
        "one value": np.ones_like(weight),
    }[kind]
    weight[rng.random(50_000) < 0.3] = 0
    count = round(share * weight.size)
    order = np.lexsort((-np.abs(weight), -scores))
    wanted = order[weight[order] != 0][:count]
    np.testing.assert_array_equal(np.flatnonzero(top(scores, weight, count)), np.sort(wanted))


@given(st.integers(0, 999))
@settings(deadline=None)
def test_top_rows_is_top_of_each_row(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (2, 3, 7)).astype(np.float32)
    magnitude = rng.integers(0, 3, (2, 3, 7)).astype(np.float32)
    counts = rng.integers(0, 9, (2, 3))
    mask = top_rows(scores, magnitude, counts)
    for row in np.ndindex(2, 3):
        np.testing.assert_array_equal(mask[row], top(scores[row], magnitude[row], counts[row]))


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60)), min_size=1, max_size=12),
    st.floats(0, 1.2),
)
def test_apportion(pairs, share):
    sizes, capacity = (np.array(column) for column in zip(*pairs, strict=True))
    total = round(share * sizes.sum())
    counts = apportion(sizes, capacity, total)
    limit = np.minimum(sizes, capacity)
    assert counts.sum() == min(total, limit.sum())
    assert np.all((counts >= 0) & (counts <= limit))
    free = counts < limit
    if free.any():  # units with room have the same share, up to one weight
        shares = counts[free] / sizes[free]
        slack = 1 / sizes[free]
        assert np.max(shares - slack) <= np.min(shares + slack)


def test_apportion_in_proportion():
    counts = apportion(np.array([10, 20, 70]), np.array([10, 20, 70]), 50)
    np.testing.assert_array_equal(counts, [5, 10, 35])
    counts = apportion(np.array([10, 20, 70]), np.array([2, 20, 70]), 47)
    np.testing.assert_array_equal(counts, [2, 10, 35])
    # What whole numbers leave goes to the largest remainders: 1.27, 2.54 and 5.20 of nine.
    counts = apportion(np.array([10, 20, 41]), np.array([10, 20, 41]), 9)
    np.testing.assert_array_equal(counts, [1, 3, 5])


def test_what_is_left_over_goes_to_no_full_unit():
    counts = apportion(np.array([10, 10, 10]), np.array([2, 10, 10]), 13)
    np.testing.assert_array_equal(counts, [2, 6, 5])


def test_lamp_scores_are_those_of_the_paper():
    """Score(u) = W[u]² / Σ_{v ≥ u} W[v]², weights in ascending order (arXiv 2010.07611, eq. 3)."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape) for shape in ((1, 4, 6), (2, 3, 5))]
    lamp = []
    for weight in weights:
        flat = weight.ravel()
        order = sorted(range(flat.size), key=lambda u: flat[u] ** 2)
        score = np.zeros(flat.size)
        for place, u in enumerate(order):
            score[u] = flat[u] ** 2 / sum(flat[v] ** 2 for v in order[place:])
        lamp.append(score)
    for keep in (2, 10, 30, 53):
        masks = select([np.abs(weight) for weight in weights], weights, keep, "lamp")
        threshold = np.sort(np.concatenate(lamp))[-keep]
        for mask, score in zip(masks, lamp, strict=True):
            np.testing.assert_array_equal(mask.ravel(), score >= threshold)


def test_lamp_leaves_every_layer_its_largest_weight():
    small, large = np.full((1, 2, 2), 1e-6), np.full((1, 4, 4), 1e3)
    masks = select([small, large], [small, large], 2, "lamp")
    assert [int(mask.sum()) for mask in masks] == [1, 1]


def test_global_compares_across_layers():
    small, large = np.full((1, 2, 2), 0.1), np.full((1, 2, 2), 1.0)
    masks = select([small, large], [small, large], 4, "global")
    assert [int(mask.sum()) for mask in masks] == [0, 4]


def test_layer_gives_each_layer_its_share():
    layers = [np.full((1, 2, 5), 0.1), np.full((1, 4, 10), 1.0)]
    masks = select(layers, layers, 25, "layer")
    assert [int(mask.sum()) for mask in masks] == [5, 20]


def test_neuron_gives_each_neuron_its_share():
    rng = np.random.default_rng(1)
    layers = [rng.random((2, 3, 10)) + 0.1, rng.random((1, 4, 20)) + 5]
    masks = select(layers, layers, 70, "neuron")
    assert np.all(masks[0].sum(axis=-1) == 5)
    assert np.all(masks[1].sum(axis=-1) == 10)


def test_what_goes_first_goes_before_no_zero():
    """Scores below 0 are the last that are kept, but zeros are never kept."""
    scores = np.array([[-0.5, 0.3, 0.7, 0.0, -0.5]], np.float32)
    magnitude = np.array([[1, 1, 0, 1, 0]], np.float32)
    for count, kept in enumerate([[], [1], [1, 3], [0, 1, 3], [0, 1, 3]]):
        mask = top_rows(scores, magnitude, np.array([count]))
        np.testing.assert_array_equal(np.flatnonzero(mask), kept)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ml_dtypes.bfloat16, "int8"])
@pytest.mark.parametrize("way", ["plain", "transposed", "broadcast"])
def test_what_is_not_kept_is_zero_to_the_bit(dtype, way):
    rng = np.random.default_rng(0)
    values = (8 * rng.normal(size=(5, 7))).astype(dtype)
    if way == "transposed":
        values = values.T
    if way == "broadcast":
        values = np.broadcast_to(values, (2, *values.shape))
    kept = rng.random(values.shape) < 0.5
    found = kept_only(values, kept)
    assert found.dtype == values.dtype
    assert found.tobytes() == np.where(kept, values, np.zeros((), dtype)).tobytes()


def test_what_is_not_kept_may_be_anything():
    values = np.array([np.inf, -np.inf, np.nan, -0.0, 1e-45], np.float32)
    assert kept_only(values, np.zeros(5, np.bool_)).tobytes() == bytes(20)
    assert kept_only(values, np.ones(5, np.bool_)).tobytes() == values.tobytes()
