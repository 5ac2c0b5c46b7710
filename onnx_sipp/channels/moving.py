"""Rules for operators that pick elements out of tensors, or put tensors together."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_sipp.channels.trace import Axes, Edit, Keeps, Stuck, Trace, called
from onnx_sipp.channels.units import FIXED, Ids
from onnx_sipp.graph.node import attributes

__all__ = ["concat", "gather", "reduction", "slicing", "splitting", "tiling"]

Array = NDArray[Any]


def concat(node: NodeProto, index: int, trace: Trace) -> None:
    """Concat: other axes run side by side."""
    del index
    operands = [trace.of(name) for name in node.input]
    axis = int(attributes(node).get("axis", 1)) % len(operands[0])
    result: Axes = list(operands[0])
    for place, ids in enumerate(operands[0]):
        for other in operands[1:]:
            if place != axis:
                why = f"{called(node)} puts it beside something that stays"
                trace.units.join(ids, other[place], why)
    result[axis] = np.concatenate([operand[axis] for operand in operands])
    trace.axes[node.output[0]] = result


def splitting(node: NodeProto, index: int, trace: Trace) -> None:
    """Split."""
    found, x = attributes(node), trace.of(node.input[0])
    axis = int(found.get("axis", 0)) % len(x)
    sizes = [trace.shape(name)[axis] for name in node.output if name]
    if len(sizes) < len(node.output):
        raise Stuck("it has outputs without a name")
    parts = np.split(x[axis], np.cumsum(sizes)[:-1])
    for name, part in zip(node.output, parts, strict=True):
        trace.axes[name] = [*x[:axis], part, *x[axis + 1 :]]
    if trace.is_cut(x[axis]):
        place: int | str = "split" if trace.opset < 13 else 1
        trace.edits.append(
            Edit(index, place, lambda keeps: np.array([int(keeps(p).sum()) for p in parts]))
        )


def slicing(node: NodeProto, index: int, trace: Trace) -> None:
    """Slice by constant bounds."""
    found, x = attributes(node), trace.of(node.input[0])
    inside = "starts" in found
    given = [np.asarray(found[key]) for key in ("starts", "ends") if inside]
    if not inside:
        known = [name in trace.constants for name in node.input[1:]]
        if not all(known):
            _slice_of_unknown_bounds(node, trace, x)
            return
        given = [trace.value(name) for name in node.input[1:3]]
    starts, ends = (bounds.tolist() for bounds in given)
    axes = found.get("axes") or range(len(starts))
    steps = [1] * len(starts)
    if len(node.input) > 3 and node.input[3]:
        axes = trace.value(node.input[3]).tolist()
    if len(node.input) > 4 and node.input[4]:
        steps = trace.value(node.input[4]).tolist()
    result = list(x)
    new: list[tuple[Ids, slice]] = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        part = slice(*slice(start, end, step).indices(x[axis].size))
        if step < 0:
            part = slice(start, None if part.stop < 0 else part.stop, step)
        if step != 1 and trace.is_cut(x[axis]):
            trace.units.fix(x[axis], f"{called(node)} takes them in steps of {step}")
        result[axis] = x[axis][part]
        new.append((x[axis], part))
    trace.axes[node.output[0]] = result
    for place, name, side, old in ((1, "starts", 0, given[0]), (2, "ends", 1, given[1])):
        value = _bounds(new, old, side)
        trace.edits.append(Edit(index, name if inside else place, value))


def _bounds(new: list[tuple[Ids, slice]], old: Array, side: int) -> Any:
    def value(keeps: Keeps) -> Array:
        bounds = old.copy()
        for place, (ids, part) in enumerate(new):
            kept = keeps(ids)
            if not kept.all():
                bounds[place] = int(kept[: (part.start, part.stop)[side]].sum())
        return bounds

    return value


def _slice_of_unknown_bounds(node: NodeProto, trace: Trace, x: Axes) -> None:
    """Axes that keep their length are not sliced, as far as one sample tells."""
    result = []
    for ids, size in zip(x, trace.shape(node.output[0]), strict=True):
        if ids.size != size:
            trace.units.fix(ids, f"{called(node)} has bounds that are calculated")
        result.append(ids if ids.size == size else np.full(size, FIXED))
    trace.axes[node.output[0]] = result


def gather(node: NodeProto, index: int, trace: Trace) -> None:
    """Gather: picks along one axis; what is picked while the model runs stays."""
    x = trace.of(node.input[0])
    axis = int(attributes(node).get("axis", 0)) % len(x)
    picked = trace.of(node.input[1])
    for ids in picked:
        trace.units.fix(ids, f"they tell {called(node)} what to pick")
    ids = x[axis]
    if node.input[1] not in trace.constants:
        trace.units.fix(ids, f"{called(node)} picks among them while the model runs")
        new: Axes = [np.full(axis_.size, FIXED) for axis_ in picked]
    else:
        places = trace.value(node.input[1])
        if places.ndim == 1 and trace.is_cut(ids):
            new = [ids[places]]
            trace.edits.append(Edit(index, 1, lambda keeps: _renumbered(places, keeps(ids))))
        else:
            trace.units.fix(ids, f"{called(node)} picks single ones of them")
            new = [np.full(size, FIXED) for size in places.shape]
    trace.axes[node.output[0]] = [*x[:axis], *new, *x[axis + 1 :]]


def _renumbered(places: Array, kept: NDArray[np.bool_]) -> Array:
    positive = places % kept.size
    result: Array = (np.cumsum(kept) - 1)[positive[kept[positive]]].astype(places.dtype)
    return result


def tiling(node: NodeProto, index: int, trace: Trace) -> None:
    """Tile: whole repetitions of an axis."""
    del index
    x, shape = trace.of(node.input[0]), trace.shape(node.output[0])
    trace.axes[node.output[0]] = [
        np.tile(ids, size // ids.size) for ids, size in zip(x, shape, strict=True)
    ]


def reduction(node: NodeProto, index: int, trace: Trace) -> None:
    """ReduceMean and its kin, ArgMax: what is reduced over stays."""
    del index
    found, x = attributes(node), trace.of(node.input[0])
    if node.op_type.startswith("Arg"):
        axes = [int(found.get("axis", 0))]
    elif len(node.input) > 1 and node.input[1]:
        axes = trace.value(node.input[1]).tolist()
    else:
        axes = list(found.get("axes") or [])
    if not axes and not found.get("noop_with_empty_axes", 0):
        axes = list(range(len(x)))
    gone = {axis % len(x) for axis in axes}
    result = []
    for axis, ids in enumerate(x):
        if axis not in gone:
            result.append(ids)
            continue
        trace.units.fix(ids, f"{called(node)} sums them up")
        if found.get("keepdims", 1):
            result.append(np.full(1, FIXED))
    if prod(ids.size for ids in result) != prod(trace.shape(node.output[0])):
        raise Stuck("its output has another shape than expected")
    trace.axes[node.output[0]] = result
