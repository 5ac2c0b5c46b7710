"""Rules for operators that lay the same elements out in other axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_sipp.channels.trace import Axes, Edit, Keeps, Trace, called
from onnx_sipp.channels.units import FIXED, Ids, Units, tied_by
from onnx_sipp.graph.node import attributes

__all__ = ["relaid", "reshape", "transpose"]

# So many parts are queries, keys and values rather than heads.
_PARTS = 3


def transpose(node: NodeProto, index: int, trace: Trace) -> None:
    """Transpose."""
    del index
    x = trace.of(node.input[0])
    order = attributes(node).get("perm") or range(len(x))[::-1]
    trace.axes[node.output[0]] = [x[axis] for axis in order]


def reshape(node: NodeProto, index: int, trace: Trace) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze."""
    x, shape = trace.of(node.input[0]), trace.shape(node.output[0])
    result = relaid(trace, x, shape, called(node))
    trace.axes[node.output[0]] = result
    if node.op_type != "Reshape":
        return
    if "shape" in attributes(node):
        old = np.asarray(attributes(node)["shape"])
        place: int | str = "shape"
    elif node.input[1] in trace.constants:
        old, place = trace.value(node.input[1]), 1
    elif not attributes(node).get("allowzero", 0) and any(map(trace.is_cut, (*x, *result))):
        found = _without_lengths(trace, x, result)
        if found is None:  # whatever calculates the shape may follow the lengths by itself
            return
        old, place = found, 1
    else:
        return
    trace.edits.append(Edit(index, place, lambda keeps: _lengths(old, result, keeps)))


def _without_lengths(trace: Trace, x: Axes, result: Axes) -> NDArray[np.int64] | None:
    """A shape for Reshape that names only lengths which do not depend on the input."""
    open_ = [axis for axis, ids in enumerate(result) if ids.size > 1 and not trace.is_cut(ids)]
    lengths = np.array([ids.size for ids in result], np.int64)
    lead = 0
    while lead < min(len(x), len(result)) and x[lead].size == result[lead].size:
        lead += 1
    lengths[:lead] = 0
    rest = [axis for axis in open_ if axis >= lead]
    if len(rest) > 1:
        return None
    lengths[rest or [-1]] = -1
    return lengths


def _lengths(old: NDArray[Any], axes: Sequence[Ids], keeps: Keeps) -> NDArray[Any]:
    new = old.copy()
    for axis, ids in enumerate(axes):
        if new[axis] > 0:
            new[axis] = int(keeps(ids).sum())
    return new


def relaid(trace: Trace, x: Axes, shape: Sequence[int], what: str) -> Axes:
    """Units along new axes; units are tied where only one of several new axes can be cut.

    Args:
        trace: of the graph.
        x: along the old axes.
        shape: new lengths.
        what: does it, for people.
    """
    units = trace.units
    result: Axes = [np.full(size, FIXED) for size in shape]
    for old, new in _blocks([ids.size for ids in x], shape):
        ids = _merged(trace, [x[axis] for axis in old], what)
        if ids is None:
            continue
        sizes = [shape[axis] for axis in new]
        if len(new) == 1:
            result[new[0]] = ids
            continue
        chosen = _axis(units, ids, sizes, trailing=len(shape) - new[-1] > 1 and len(old) == 1)
        places = np.unravel_index(np.arange(ids.size), sizes)[chosen]
        why = f"{what} parts them evenly"
        result[new[chosen]] = tied_by(units, ids, places.astype(np.int64), sizes[chosen], why)
    return result


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Part both shapes into the shortest runs of axes with as many elements; 1s are left out."""
    sides = [[axis for axis, size in enumerate(sizes) if size != 1] for sizes in (old, new)]
    found = []
    if 0 in (*old, *new):
        return []
    while sides[0] and sides[1]:
        left, right = [sides[0].pop(0)], [sides[1].pop(0)]
        while True:
            a, b = prod(old[axis] for axis in left), prod(new[axis] for axis in right)
            if a == b:
                break
            (left if a < b else right).append(sides[0 if a < b else 1].pop(0))
        found.append((left, right))
    return found


def _merged(trace: Trace, axes: Sequence[Ids], what: str) -> Ids | None:
    """Units of several axes laid out as one; None if nothing can be cut.

    Of several axes that could be, the longest is.
    """
    cut = [axis for axis, ids in enumerate(axes) if trace.is_cut(ids)]
    if not cut:
        return None
    chosen = max(cut, key=lambda axis: len(np.unique(axes[axis])))
    for axis in cut:
        if axis != chosen:
            trace.units.fix(axes[axis], f"{what} merges them with other channels")
    sizes = [ids.size for ids in axes]
    spread = axes[chosen].reshape([-1 if axis == chosen else 1 for axis in range(len(axes))])
    return np.broadcast_to(spread, sizes).ravel()


def _axis(units: Units, ids: Ids, sizes: Sequence[int], *, trailing: bool) -> int:
    """Which of several new axes takes the units.

    Where the units are the same along all others, that one. Else heads, which come before what is
    in them; or channels that are shuffled, which are more than the groups that they are in, and lie
    before other axes.
    """
    laid = units.roots(ids).reshape(sizes)
    for axis in range(len(sizes)):
        lines = np.moveaxis(laid, axis, 0).reshape(sizes[axis], -1)
        if sizes[axis] > 1 and (lines == lines[:, :1]).all():
            return axis
    real = [axis for axis, size in enumerate(sizes) if size > 1]
    if len(real) > 2 and sizes[real[0]] <= _PARTS:
        real = real[1:]
    if trailing:
        return max(reversed(real), key=lambda axis: sizes[axis])
    return real[0]
