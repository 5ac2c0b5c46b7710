"""Exact selection: which weights are kept when so many may stay.

All counts are met to the weight. Stored zeros are never kept (they are zeros already), and ties
are broken by magnitude, then by place, so that a mask depends on nothing but its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.threads import row_parts

__all__ = [
    "ALLOCATIONS",
    "Mask",
    "apportion",
    "kept_only",
    "select",
    "top",
    "top_rows",
]

Mask = NDArray[np.bool_]
Scores = NDArray[np.floating]
Value = TypeVar("Value", bound=np.generic)

# Values that are looked at to find out about where the largest of many begin.
_SAMPLE = 1 << 14


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
        scores: ``[..., fan_in]``, above -1.
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
    alive = sizes > 0
    keyed = kept_only(scores, alive)
    keyed -= ~alive  # last, also behind scores of 0
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
