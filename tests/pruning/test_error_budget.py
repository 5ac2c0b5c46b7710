"""The budget by measured error: exact, and the best there is for convex curves."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_sipp.pruning.error_budget import FLOOR, condensed, error_budget, relative_error


def some_costs(seed, sizes, zeros=0.0):
    """Costs with ties, and stored zeros that cost nothing."""
    rng = np.random.default_rng(seed)
    layers = []
    for size in sizes:
        costs = np.round(rng.random((1, 1, size)) ** 2, 2) + 0.01
        layers.append(np.where(rng.random(costs.shape) < zeros, 0, costs).astype(np.float32))
    return layers


@given(
    st.integers(0, 999),
    st.lists(st.integers(1, 300), min_size=1, max_size=5),
    st.floats(0, 1.1),
    st.floats(0, 1),
)
@settings(deadline=None)
def test_sums_are_exact_within_capacities(seed, sizes, share, zeros):
    costs = some_costs(seed, sizes, zeros)
    powers = [float(layer.sum()) for layer in costs]
    capacities = [np.count_nonzero(layer) for layer in costs]
    keep = round(share * sum(sizes))
    counts = error_budget(costs, powers, capacities, keep)
    assert sum(counts) == min(keep, sum(capacities))
    assert all(0 <= count <= most for count, most in zip(counts, capacities, strict=True))
    some = [count for count, most in zip(counts, capacities, strict=True) if most]
    assert not some or min(some) >= 1 or keep < len(some), "a layer was emptied"


def test_every_layer_keeps_its_floor():
    costs = [np.full(1000, 1e-9), np.arange(1.0, 1001)]
    powers = [1.0, float(costs[1].sum()) * 2]
    assert error_budget(costs, powers, [1000, 1000], 500) == [round(FLOOR * 1000), 490]
    assert error_budget(costs, powers, [1000, 1000], 500, floor=0.1) == [100, 400]
    assert error_budget(costs, powers, [4, 1000], 500, floor=0.1) == [4, 496]
    assert error_budget(costs, powers, [1000, 1000], 500, floor=0) == [1, 499]


@pytest.mark.parametrize(
    ("floors", "expected"),
    [
        ([0.9, 0.1], [900, 100]),  # which is all, and far from the same share of both
        ([0.8, 0.1], [800, 200]),
        ([0.95, 0.3], [700, 300]),  # the lower one fits
        ([0.7, 0.6], [500, 500]),  # neither does
    ],
)
def test_the_highest_floors_are_lowered_where_not_all_fit(floors, expected):
    costs = [np.full(1000, 1e-9), np.arange(1.0, 1001)]
    powers = [1.0, float(costs[1].sum()) * 2]
    assert error_budget(costs, powers, [1000, 1000], 1000, floor=floors) == expected


@pytest.mark.parametrize("keep", [3, 4, 30, 60])
def test_floors_that_do_not_fit_are_shared(keep):
    """Beyond 99 % sparsity the first layers must not take all."""
    costs = [np.ones((1, 100, size)) for size in (100, 50, 10)]
    counts = error_budget(costs, [1e4] * 3, [layer.size for layer in costs], keep)
    assert sum(counts) == keep
    assert min(counts) >= 1
    assert counts == pytest.approx([keep * layer.size / 16_000 for layer in costs], abs=3)


def test_layers_of_one_weight_do_not_starve_the_last():
    """Their floors, rounded up, are together more than what stays."""
    costs = [np.ones(10_000), *(np.ones(10) for _ in range(6))]
    counts = error_budget(costs, [1e5] * 7, [layer.size for layer in costs], 8)
    assert counts == [2, 1, 1, 1, 1, 1, 1]


def rates(costs, power):
    """Marginals as the module states them: c / (y (1 − e)), removal by removal."""
    error, result = 0.0, []
    for cost in sorted(costs):
        error += cost / power
        result.append(cost / power / (1 - error))
    return result


def objective(costs, powers, counts, importance):
    total = 0.0
    for layer, power, count, value in zip(costs, powers, counts, importance, strict=True):
        total -= value * np.log1p(-relative_error(layer, power, count))
    return total


@given(st.integers(0, 999), st.integers(3, 20))
@settings(deadline=None, max_examples=30)
def test_no_other_shares_are_better(seed, keep):
    rng = np.random.default_rng(seed)
    costs = [rng.random(size) for size in (6, 7, 8)]
    powers = [
        float(layer.sum() * factor) for layer, factor in zip(costs, (1.5, 4, 30), strict=True)
    ]
    importance = list(rng.uniform(0.2, 3, 3))
    counts = error_budget(costs, powers, [6, 7, 8], keep, importance)
    marginals = [
        np.multiply(value, rates(layer, power))
        for value, layer, power in zip(importance, costs, powers, strict=True)
    ]
    others = [
        other
        for other in itertools.product(range(1, 7), range(1, 8), range(1, 9))
        if sum(other) == keep
    ]

    def loss(shares):
        return sum(
            rate[: len(rate) - count].sum() for rate, count in zip(marginals, shares, strict=True)
        )

    assert loss(counts) <= min(loss(other) for other in others) + 1e-9


def test_close_to_the_optimum_of_the_objective():
    """The sum of marginals stands for the logarithm; with many small costs they agree."""
    rng = np.random.default_rng(0)
    costs = [rng.random(60) ** 3 for _ in range(3)]
    powers = [float(layer.sum() * factor) for layer, factor in zip(costs, (1.1, 2, 8), strict=True)]
    importance = [1.0, 2.0, 0.5]
    for keep in (40, 90, 140):
        counts = error_budget(costs, powers, [60] * 3, keep, importance)
        best = min(
            objective(costs, powers, (a, b, keep - a - b), importance)
            for a, b in itertools.product(range(1, 61), repeat=2)
            if 1 <= keep - a - b <= 60
        )
        assert objective(costs, powers, counts, importance) <= 1.01 * best


def test_importance_draws_weights():
    costs = [np.arange(1.0, 101)] * 2
    powers = [1e4, 1e4]
    even = error_budget(costs, powers, [100, 100], 80)
    assert even == [40, 40]
    assert error_budget(costs, powers, [100, 100], 80, [1.0, 1.0]) == even
    first, second = error_budget(costs, powers, [100, 100], 80, [3.0, 1.0])
    assert first > 45 > second
    # What matters is the ratio; scaling the costs and the power changes nothing.
    assert error_budget(costs, powers, [100, 100], 80, [30.0, 10.0]) == [first, second]
    doubled = [costs[0] * 2, costs[1]]
    assert error_budget(doubled, [2e4, 1e4], [100, 100], 80) == even


def test_a_layer_without_power_gets_no_more_than_others_need():
    costs = [np.zeros(10), np.arange(1.0, 11)]
    assert error_budget(costs, [0.0, 100.0], [10, 10], 8) == [1, 7]


def test_relative_error():
    costs = np.array([[4.0, 1.0], [2.0, 3.0]])
    assert relative_error(costs, 20.0, 4) == 0
    assert relative_error(costs, 20.0, 2) == pytest.approx(3 / 20)
    assert relative_error(costs, 20.0, 0) == pytest.approx(10 / 20)
    assert relative_error(costs, 5.0, 0) == 1
    assert relative_error(costs, 0.0, 1) == 1


# --- costs that stand for several weights ------------------------------------------------------


@given(st.integers(0, 999), st.integers(1, 60), st.integers(1, 9), st.floats(0, 1))
@settings(deadline=None)
def test_costs_may_stand_for_several_weights(seed, points, times, share):
    rng = np.random.default_rng(seed)
    few = np.sort(rng.random(points))
    many, counts = np.repeat(few, times), np.full(points, times)
    power = 2 * float(many.sum())
    keep = round(share * many.size)
    assert relative_error(few, power, keep, counts) == pytest.approx(
        relative_error(many, power, keep)
    )
    other = np.sort(rng.random(50)) * times
    powers = [power, 2 * float(other.sum())]
    capacities = [many.size, other.size]
    keep = round(share * (many.size + other.size))
    exact = error_budget([many, other], powers, capacities, keep)
    found = error_budget([few, other], powers, capacities, keep, times=[counts, None])
    assert sum(found) == sum(exact) == keep
    # The error within a point counts as that at its end.
    assert abs(found[0] - exact[0]) <= max(3 * times, 0.1 * many.size)


def test_stored_zeros_take_no_place_of_what_stands_for_several():
    few = np.array([0.0, 0.0, 1.0, 2.0])
    counts = np.full(4, 10)
    found = error_budget([few, np.ones(5)], [60.0, 10.0], [17, 5], 40, times=[counts, None])
    assert found == [17, 5]


def test_floors_are_met_by_what_stands_for_several():
    """Ten weights of a layer that hardly counts: the dearest points that are no more than that."""
    cheap, dear = np.array([1.0, 2.0, 3.0, 4.0]), np.linspace(10, 20, 40)
    times = [np.array([34, 3, 2, 1]), None]
    found = error_budget([cheap, dear], [1e6, 600.0], [40, 40], 20, floor=0.25, times=times)
    assert found == [6, 14]


@pytest.mark.parametrize("size", [90, 100, 1000, 123457])
def test_condensed(size):
    rng = np.random.default_rng(0)
    costs = rng.exponential(size=(2, 45)).astype(np.float32)
    points, times = condensed(costs, size)
    assert times.sum() == size
    assert np.all(np.diff(points) >= 0)
    assert np.sum(points * times) / size == pytest.approx(costs.mean(), rel=0.05)


def test_condensed_curves_are_short():
    costs = np.random.default_rng(0).exponential(size=1 << 16)
    points, times = condensed(costs, 1 << 20)
    assert len(points) == len(times) == 1 << 14
    assert np.sum(points * times) == pytest.approx(16 * costs.sum())
    assert relative_error(points, 1e9, 1 << 19, times) == pytest.approx(
        16 * np.sort(costs)[: 1 << 15].sum() / 1e9, rel=1e-3
    )
