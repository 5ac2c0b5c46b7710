"""Exact selection: which weights are kept when so many may stay.

All counts are met to the weight. Stored zeros are never kept (they are zeros already), and ties
are broken by magnitude, then by place, so that a mask depends on nothing but its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.store import ranges
from onnx_sipp.threads import row_parts

__all__ = [
    "ALLOCATIONS",
    "Mask",
    "apportion",
    "kept_only",
    "positive",
    "score_histogram",
    "select",
    "shares_of_top",
    "top",
    "top_rows",
]

Mask = NDArray[np.bool_]
Scores = NDArray[np.floating]
Value = TypeVar("Value", bound=np.generic)

# Values that are looked at to find out about where the largest of many begin.
_SAMPLE = 1 << 14
# Scores that are counted at a time.
_COUNTED = 1 << 18


def kept_only(values: NDArray[Value], kept: Mask) -> NDArray[Value]:
    """Values where they are kept, 0 elsewhere: what `np.where` gives, far sooner.

    It branches at every element, and processors guess wrong where masks look random.

    Args:
        values: any shape, of numbers of up to 8 bytes.
        kept: same shape.
    """
    bits = f"i{values.itemsize}"
    result = np.empty(values.shape, values.dtype)
    np.multiply(values.view(bits), kept, out=result.view(bits))
    return result


def top(scores: Scores, weight: Scores, count: int) -> Mask:
    """Mark the ``count`` largest scores among the non-zero weights.

    Args:
        scores: any shape, not negative.
        weight: same shape; its magnitude breaks ties, and a zero is not marked.
        count: how many; at most the number of non-zero weights are marked.
    """
    alive = weight.ravel() != 0
    flat = kept_only(scores.ravel(), alive)
    count = min(count, int(np.count_nonzero(alive)))
    if count <= 0:
        return np.zeros(scores.shape, np.bool_)
    threshold = _largest(flat, count)
    mask = flat > threshold
    ties = np.flatnonzero(flat == threshold)
    ties = ties[alive[ties]]
    order = np.argsort(-np.abs(weight.ravel()[ties]), kind="stable")
    mask[ties[order[: count - int(np.count_nonzero(mask))]]] = True
    result: Mask = mask.reshape(scores.shape)
    return result


def _largest(values: Scores, rank: int) -> Any:
    """The ``rank``-th largest of many values."""
    sample = np.sort(values[:: values.size // _SAMPLE | 1])  # odd, to come by all columns
    # Six standard deviations to either side of where the rank is expected in the sample.
    place, slack = sample.size * (1 - rank / values.size), 3 * math.sqrt(sample.size)
    low, high = (sample[int(np.clip(place + s, 0, sample.size - 1))] for s in (-slack, slack))
    above = int(np.count_nonzero(values > high))
    near = values[(values > low) & (values <= high)]  # without the many that may be equal to low
    if above < rank <= above + near.size:
        values, rank = near, rank - above
    elif above < rank <= above + near.size + int(np.count_nonzero(values == low)):
        return low
    return np.partition(values, values.size - rank)[values.size - rank]


def top_rows(scores: Scores, magnitude: Scores, counts: NDArray[np.int64]) -> Mask:
    """Like `top` in every row of ``[..., fan_in]`` with a count of its own.

    Args:
        scores: ``[..., fan_in]``, not negative.
        magnitude: same shape.
        counts: shape of the rows.
    """
    fan_in = scores.shape[-1]
    flat, sizes = scores.reshape(-1, fan_in), magnitude.reshape(-1, fan_in)
    counts, mask = counts.ravel(), np.zeros(flat.shape, np.bool_)
    for rows in row_parts((1, *flat.shape)):
        mask[rows] = _top_of_rows(flat[rows], sizes[rows], counts[rows])
    return mask.reshape(scores.shape)


def _top_of_rows(scores: Scores, sizes: Scores, counts: NDArray[np.int64]) -> Mask:
    fan_in = scores.shape[-1]
    keyed = kept_only(scores, sizes > 0)  # those of size 0 lose every tie
    count = np.minimum(counts, np.count_nonzero(sizes, axis=-1))[:, None]
    places = np.minimum(fan_in - count, fan_in - 1)
    threshold = np.take_along_axis(np.sort(keyed, axis=-1), places, axis=-1)
    mask: Mask = (keyed >= threshold) & (count > 0)
    for row in np.flatnonzero(np.count_nonzero(mask, axis=-1) > count[:, 0]):
        mask[row] = keyed[row] > threshold[row]
        ties = np.flatnonzero(keyed[row] == threshold[row])
        order = np.argsort(-sizes[row, ties], kind="stable")
        mask[row, ties[order[: count[row, 0] - np.count_nonzero(mask[row])]]] = True
    return mask


def shares_of_top(scores: Callable[[], Iterable[Scores]], count: int) -> list[int]:
    """How many of the ``count`` largest scores each block of a layer holds.

    Args:
        scores: gives the blocks one after the other, and does so twice; not negative, in float32,
            0 for weights that are not to be kept.
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
    if not upper:
        counts[0] = 0  # zeros; no positive score is that small
    return counts


def _bin_of(counts: NDArray[np.int64], rank: int) -> int:
    """The bin of the ``rank``-th from the top."""
    enough = np.cumsum(counts[::-1])[::-1] >= rank
    return int(np.flatnonzero(enough)[-1]) if enough.any() else 0


def apportion(
    sizes: NDArray[np.int64], capacity: NDArray[np.int64], total: int
) -> NDArray[np.int64]:
    """Share ``total`` in proportion to ``sizes``, nobody above its capacity, exact in sum.

    Args:
        sizes: weights of each unit.
        capacity: the most that each unit can take.
        total: at most the sum of the capacities.
    """
    capacity = np.minimum(sizes, capacity)
    total = min(total, int(capacity.sum()))
    low, high = 0.0, 1.0
    for _ in range(60):  # the fraction that fills the total once full units take no more
        middle = (low + high) / 2
        if np.minimum(middle * sizes, capacity).sum() < total:
            low = middle
        else:
            high = middle
    wanted = np.minimum(low * sizes, capacity)
    counts: NDArray[np.int64] = np.floor(wanted).astype(np.int64)
    rest = total - int(counts.sum())
    room = np.argsort(-(wanted - counts), kind="stable")
    room = room[counts[room] < capacity[room]]
    while rest > 0:
        chosen = room[:rest]
        counts[chosen] += 1
        rest -= len(chosen)
        room = room[counts[room] < capacity[room]]
    return counts


def _split(flat: Mask, like: Sequence[Scores]) -> list[Mask]:
    ends = np.cumsum([layer.size for layer in like])
    parts = np.split(flat, ends[:-1])
    return [part.reshape(layer.shape) for part, layer in zip(parts, like, strict=True)]


def _global(scores: Sequence[Scores], magnitudes: Sequence[Scores], keep: int) -> list[Mask]:
    """One ranking over all layers."""
    flat = np.concatenate([layer.ravel() for layer in scores])
    sizes = np.concatenate([layer.ravel() for layer in magnitudes])
    return _split(top(flat, sizes, keep), scores)


def _lamp(scores: Sequence[Scores], magnitudes: Sequence[Scores], keep: int) -> list[Mask]:
    """One ranking, each score scaled within its layer (LAMP, arXiv 2010.07611, eq. 3)."""
    return _global([_lamp_scale(layer) for layer in scores], magnitudes, keep)


def _lamp_scale(scores: Scores) -> Scores:
    squares = np.square(scores.ravel(), dtype=np.float64)
    order = np.argsort(squares, kind="stable")
    # Sum of the squares from each weight on upwards.
    above = np.cumsum(squares[order][::-1])[::-1]
    scaled = np.zeros_like(squares)
    np.divide(squares[order], above, out=above, where=above > 0)
    scaled[order] = above
    return scaled.reshape(scores.shape)


def _layer(scores: Sequence[Scores], magnitudes: Sequence[Scores], keep: int) -> list[Mask]:
    """The same sparsity in every layer."""
    sizes = np.array([layer.size for layer in scores])
    capacity = np.array([np.count_nonzero(layer) for layer in magnitudes])
    counts = apportion(sizes, capacity, keep)
    return [top(s, m, int(k)) for s, m, k in zip(scores, magnitudes, counts, strict=True)]


def _neuron(scores: Sequence[Scores], magnitudes: Sequence[Scores], keep: int) -> list[Mask]:
    """The same sparsity in every neuron."""
    rows = [np.full(layer.shape[:-1], layer.shape[-1]) for layer in scores]
    capacity = [np.count_nonzero(layer, axis=-1) for layer in magnitudes]
    flat = apportion(_join(rows), _join(capacity), keep)
    counts = np.split(flat, np.cumsum([r.size for r in rows])[:-1])
    return [
        top_rows(s, m, k.reshape(r.shape))
        for s, m, k, r in zip(scores, magnitudes, counts, rows, strict=True)
    ]


def _join(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([part.ravel() for part in parts])


Allocate = Callable[[Sequence[Scores], Sequence[Scores], int], list[Mask]]

ALLOCATIONS: Mapping[str, Allocate] = {
    "global": _global,
    "layer": _layer,
    "neuron": _neuron,
    "lamp": _lamp,
}


def select(
    scores: Sequence[Scores], weights: Sequence[Scores], keep: int, allocation: str
) -> list[Mask]:
    """Choose the weights to keep in all layers together.

    Args:
        scores: importance per layer, ``[group, out, fan_in]``, not negative.
        weights: the weights, same shapes.
        keep: how many weights stay, over all layers.
        allocation: a key of `ALLOCATIONS`.

    Returns:
        Masks that keep exactly ``min(keep, number of non-zero weights)`` weights.
    """
    return ALLOCATIONS[allocation](scores, [np.abs(weight) for weight in weights], keep)
