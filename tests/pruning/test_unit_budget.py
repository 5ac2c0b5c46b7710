"""Budgets of units against trying all counts."""

import itertools

import numpy as np
import pytest

from onnx_sipp.pruning import unit_budget as module
from onnx_sipp.pruning.unit_budget import Curve, even_counts, unit_budget


def chain(counts):
    """Multiply-adds of layers in a row, of which each reads what the one before makes."""
    ends = np.array([4, *counts, 4])
    return float(ends[:-1] @ ends[1:]) / (4 * 16 + 16 * 16 * 2 + 16 * 4)


def curves(seed):
    rng = np.random.default_rng(seed)
    return [
        Curve((16, 12, 8, 4), np.concatenate([[0], np.cumsum(rng.exponential(0.1, 3))]).tolist())
        for _ in range(3)
    ]


def loss(found, counts):
    errors = [c.errors[c.counts.index(n)] for c, n in zip(found, counts, strict=True)]
    return -np.log1p(-np.clip(errors, 0, 0.99)).sum()


def over_the_least(seed, goal):
    """Loss of the counts that are found over the least there is."""
    found = curves(seed)
    counts = unit_budget(found, chain, goal)
    assert chain(counts) <= goal
    ways = itertools.product(*(curve.counts for curve in found))
    least = min(loss(found, way) for way in ways if chain(way) <= goal)
    return loss(found, counts) / least


@pytest.mark.parametrize("goal", [0.2, 0.35, 0.5, 0.75])
def test_goal_is_met_at_nearly_the_least_loss(goal):
    ratios = [over_the_least(seed, goal) for seed in range(100)]
    assert np.mean(ratios) < 1.05


@pytest.mark.parametrize("goal", [0.2, 0.35, 0.5, 0.75])
@pytest.mark.parametrize("seed", range(5))
def test_no_single_group_can_take_units_back(seed, goal):
    """Nor can one give some, so that another takes back more than that costs."""
    found = curves(seed)
    counts = unit_budget(found, chain, goal)
    for group, curve in enumerate(found):
        for more in (n for n in curve.counts if n > counts[group]):
            other = [*counts[:group], more, *counts[group + 1 :]]
            assert chain(other) > goal or loss(found, other) >= loss(found, counts)
    for group, curve in enumerate(found):
        for fewer in (n for n in curve.counts if n == counts[group] - 4):
            for taker in range(len(found)):
                other = list(counts)
                other[group] = fewer
                other[taker] = min(16, other[taker] + 4) if taker != group else fewer
                assert chain(other) > goal or loss(found, other) >= loss(found, counts) - 1e-9


def test_long_curves_are_followed_without_exchanges():
    rng = np.random.default_rng(0)
    counts = tuple(range(16, 0, -1))
    found = [
        Curve(counts, np.concatenate([[0], np.cumsum(rng.exponential(0.01, 15))]).tolist())
        for _ in range(3)
    ]
    with_exchanges = unit_budget(found, chain, 0.4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_EXCHANGES", 47)  # 48 counts in all
        without = unit_budget(found, chain, 0.4)
    assert chain(with_exchanges) <= 0.4
    assert chain(without) <= 0.4
    assert loss(found, with_exchanges) <= loss(found, without) <= 1.2 * loss(found, with_exchanges)


def test_what_saves_most_for_its_loss_goes_first(monkeypatch):
    """A step that saves as much as nine small ones; without exchanges, which would mend it."""
    monkeypatch.setattr(module, "_EXCHANGES", 0)
    large = Curve((2, 1), (0, 0.1))
    small = Curve(tuple(range(10, 0, -1)), np.linspace(0, 0.18, 10).tolist())

    def share(counts):
        return float(9 * counts[0] + counts[1]) / 28

    assert unit_budget([large, small], share, 19 / 28) == [1, 10]


def test_a_group_that_saves_nothing_keeps_all_units():
    found = [Curve((8, 4), (0, 0.5)), Curve((8, 4), (0, 0.1))]
    assert unit_budget(found, lambda counts: float(counts[0]) / 8, 0.5) == [4, 8]


def test_nothing_is_cut_for_a_goal_of_one():
    assert unit_budget(curves(0), chain, 1.0) == [16, 16, 16]


def test_none_where_the_goal_is_out_of_reach():
    assert unit_budget(curves(0), chain, 0.01) is None
    assert even_counts(curves(0), chain, 0.01) is None


def test_even_counts_keep_the_same_share():
    assert even_counts(curves(0), chain, 0.6) == [12, 12, 12]
    assert even_counts(curves(0), chain, 1.0) == [16, 16, 16]
    # A quarter of the units of the first; the others keep the fewest that they can keep at that.
    sizes = [Curve((8, 6, 4, 2), (0, 1, 2, 3)), Curve((20, 10), (0, 1)), Curve((10, 3), (0, 1))]
    assert even_counts(sizes, lambda counts: counts[0] / 8, 0.25) == [2, 10, 3]
