"""Exact selection where scores come block by block, and never are in memory all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.selection import kept_only
from onnx_sipp.slabs import ranges

__all__ = ["positive", "score_histogram", "shares_of_top"]

Scores = NDArray[np.floating]

# Scores that are counted at a time: what is made of them on the way stays in cache.
_COUNTED = 1 << 18


def shares_of_top(scores: Callable[[], Iterable[Scores]], count: int) -> list[int]:
    """How many of the ``count`` largest scores each block of a layer holds.

    Args:
        scores: gives the blocks one after the other, and does so twice; see `positive`.
        count: at most the number of positive scores.

    Returns:
        Counts that sum to ``count``; ties go to earlier blocks.
    """
    # Positive float32 numbers are in the order of their bits: first the upper half of them.
    upper = np.stack([_bit_counts(block, None) for block in scores()])
    half = _bin_of(upper.sum(axis=0), count)
    shares = upper[:, half + 1 :].sum(axis=1)
    lower = np.stack([_bit_counts(block, half) for block in scores()])
    edge = _bin_of(lower.sum(axis=0), count - int(shares.sum()))
    shares += lower[:, edge + 1 :].sum(axis=1)
    taken = np.minimum(np.cumsum(lower[:, edge]), count - int(shares.sum()))
    shares += np.diff(taken, prepend=0)
    return [int(share) for share in shares]


def positive(scores: Scores, weight: Scores) -> NDArray[np.float32]:
    """Scores as `shares_of_top` takes them: 0 exactly where the weight is."""
    above = np.maximum(scores.astype(np.float32, copy=False), np.finfo(np.float32).tiny)
    return kept_only(above, weight != 0)


def score_histogram(blocks: Iterable[Scores]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Positive scores by their first 16 bits, in ascending order.

    Args:
        blocks: scores of a layer, some at a time.

    Returns:
        How many there are with the same bits, and the sum of their squares.
    """
    counts, squares = np.zeros(1 << 16, np.int64), np.zeros(1 << 16)
    for block in blocks:
        values = np.ascontiguousarray(block, np.float32).ravel()
        values = values[values > 0]
        halves = values.view(np.uint32) >> 16
        counts += np.bincount(halves, minlength=1 << 16)
        squares += np.bincount(halves, values.astype(np.float64) ** 2, minlength=1 << 16)
    return counts, squares


def _bit_counts(scores: Scores, upper: int | None) -> NDArray[np.int64]:
    """Count the upper halves of positive float32, or the lower halves of those with one upper."""
    bits = np.ascontiguousarray(scores, np.float32).ravel().view(np.uint32)
    counts = np.zeros(1 << 16, np.int64)
    for part in ranges(bits.size, 1, _COUNTED):
        halves = bits[part] >> 16
        if upper is not None:
            halves = bits[part][halves == upper] & 0xFFFF
        counts += np.bincount(halves, minlength=1 << 16)
    if upper in (None, 0):
        counts[0] = 0  # zeros; no positive score is that small
    return counts


def _bin_of(counts: NDArray[np.int64], rank: int) -> int:
    """The bin of the ``rank``-th from the top."""
    enough = np.cumsum(counts[::-1])[::-1] >= rank
    return int(np.flatnonzero(enough)[-1]) if enough.any() else 0
