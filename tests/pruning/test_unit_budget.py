"""Budgets of units against trying all counts."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

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


@given(st.integers(0, 999), st.floats(0.15, 1))
@settings(deadline=None, max_examples=40)
def test_goal_is_met_at_nearly_the_least_loss(seed, goal):
    found = curves(seed)
    counts = unit_budget(found, chain, goal)
    assert chain(counts) <= goal
    ways = itertools.product(*(curve.counts for curve in found))
    least = min(loss(found, way) for way in ways if chain(way) <= goal)
    assert loss(found, counts) <= 1.35 * least + 1e-9


def test_nothing_is_cut_for_a_goal_of_one():
    assert unit_budget(curves(0), chain, 1.0) == [16, 16, 16]


def test_none_where_the_goal_is_out_of_reach():
    assert unit_budget(curves(0), chain, 0.01) is None
    assert even_counts(curves(0), chain, 0.01) is None


def test_even_counts_keep_the_same_share():
    assert even_counts(curves(0), chain, 0.6) == [12, 12, 12]
