"""Exact selection where scores come block by block."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stacks import stacks

from onnx_sipp.pruning.blockwise_selection import positive, score_histogram, shares_of_top


@given(stacks(), st.floats(0, 1))
@settings(deadline=None)
def test_shares_of_blocks_are_those_of_one_ranking(layers, share):
    weights, scores = layers
    blocks = [positive(score, weight) for score, weight in zip(scores, weights, strict=True)]
    keep = round(share * sum(np.count_nonzero(weight) for weight in weights))
    counts = shares_of_top(lambda: iter(blocks), keep)
    assert sum(counts) == keep
    flat = np.concatenate([block.ravel() for block in blocks])
    edge = np.sort(flat)[::-1][keep - 1] if keep else np.inf
    for count, block in zip(counts, blocks, strict=True):
        assert np.sum(block > edge) <= count <= np.sum(block >= edge)
        assert count <= np.count_nonzero(block)


@pytest.mark.parametrize("factor", [1, np.pi])
def test_ties_go_to_earlier_blocks(factor):
    parts = ([1.0, 2.0], [2.0, 2.0, 3.0], [2.0])
    blocks = [np.array(part, np.float32) * np.float32(factor) for part in parts]
    assert shares_of_top(lambda: iter(blocks), 4) == [1, 3, 0]
    assert shares_of_top(lambda: iter(blocks), 0) == [0, 0, 0]


@pytest.mark.parametrize("score", [0.0, 1e-40, 1e-300, 1.0, 1e30])
def test_scores_are_positive_where_there_is_a_weight(score):
    found = positive(np.array([score, score]), np.array([0.5, 0.0]))
    assert found[0] > 0
    assert found[1] == 0


def test_histogram():
    rng = np.random.default_rng(0)
    scores = rng.exponential(size=(3, 500)).astype(np.float32)
    scores[0, :9] = 0
    counts, squares = score_histogram(scores)
    assert counts.sum() == np.count_nonzero(scores)
    assert squares.sum() == pytest.approx(np.sum(scores.astype(np.float64) ** 2))
    filled = np.flatnonzero(counts)
    means = squares[filled] / counts[filled]
    assert np.all(np.diff(means) > 0)
