"""Rules for operators that work in every channel (axis 1) by itself, and for padding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_sipp.channels.trace import Edit, Keeps, Stuck, Trace, called
from onnx_sipp.channels.units import FIXED, Ids, tied_by
from onnx_sipp.graph.node import attributes

__all__ = ["depth_space", "padding", "pooling", "resizing"]


def pooling(node: NodeProto, index: int, trace: Trace) -> None:
    """Pools, and other operators that mix places but not channels."""
    del index
    if any(node.output[1:]):
        raise Stuck("it hands out places")
    x = trace.of(node.input[0])
    shape = trace.shape(node.output[0])
    trace.axes[node.output[0]] = [*x[:2], *(np.full(size, FIXED) for size in shape[2:])]


def resizing(node: NodeProto, index: int, trace: Trace) -> None:
    """Resize, Upsample: axes that keep their length keep their units."""
    x, shape = trace.of(node.input[0]), trace.shape(node.output[0])
    result = []
    for ids, size in zip(x, shape, strict=True):
        same = ids.size == size
        if not same:
            trace.units.fix(ids, f"{called(node)} resizes this axis")
        result.append(ids if same else np.full(size, FIXED))
    trace.axes[node.output[0]] = result
    if len(node.input) > 3 and node.input[3] in trace.constants:  # sizes
        old = trace.value(node.input[3])
        places = attributes(node).get("axes") or range(len(old))
        chosen = [result[axis] for axis in places]
        trace.edits.append(Edit(index, 3, lambda keeps: _lengths(old, chosen, keeps)))


def _lengths(old: NDArray[Any], axes: list[Ids], keeps: Keeps) -> NDArray[Any]:
    return np.array([int(keeps(ids).sum()) for ids in axes], old.dtype)


def padding(node: NodeProto, index: int, trace: Trace) -> None:
    """Pad: what is added beside channels are channels, too, that can be left out."""
    found = attributes(node)
    x = trace.of(node.input[0])
    inside = "pads" in found
    if not inside and node.input[1] not in trace.constants:
        for ids in x:  # how much is added is not known, where is
            trace.units.fix(ids, f"{called(node)} pads by what is calculated while the model runs")
        return
    old = np.asarray(found["pads"]) if inside else trace.value(node.input[1])
    listed = trace.value(node.input[3]) if len(node.input) > 3 and node.input[3] else None
    places = range(len(x)) if listed is None else (int(axis) % len(x) for axis in listed)
    begins, ends = old[: len(old) // 2].tolist(), old[len(old) // 2 :].tolist()
    added: list[tuple[Ids, Ids]] = []
    result = list(x)
    for axis, begin, end in zip(places, begins, ends, strict=True):
        ids = x[axis]
        plain = found.get("mode", "constant") == "constant" and begin >= 0 and end >= 0
        if (begin or end) and not plain:
            trace.units.fix(ids, f"{called(node)} repeats or drops some of them")
        cut = trace.is_cut(ids) and plain
        new = [trace.units.fresh(n) if cut else np.full(max(0, n), FIXED) for n in (begin, end)]
        added.append((new[0], new[1]))
        size = trace.shape(node.output[0])[axis]
        if (begin or end) and not cut:
            result[axis] = np.full(size, FIXED)
        elif begin or end:
            result[axis] = np.concatenate([new[0], ids, new[1]])
    trace.axes[node.output[0]] = result

    def value(keeps: Keeps) -> NDArray[Any]:
        sides = [
            [int(keeps(new[side]).sum()) if new[side].size else before for new, before in pairs]
            for side, pairs in enumerate(
                (list(zip(added, begins, strict=True)), list(zip(added, ends, strict=True)))
            )
        ]
        return np.array([*sides[0], *sides[1]], old.dtype)

    trace.edits.append(Edit(index, "pads" if inside else 1, value))


def depth_space(node: NodeProto, index: int, trace: Trace) -> None:
    """DepthToSpace and SpaceToDepth: a channel becomes several, or several become one."""
    del index
    found = attributes(node)
    x, shape = trace.of(node.input[0]), trace.shape(node.output[0])
    square = int(found["blocksize"]) ** 2
    few = min(x[1].size, shape[1])
    inner = found.get("mode", "DCR") == "CRD"
    many = np.arange(few * square)
    of = many // square if inner else many % few
    why = f"{called(node)} makes one channel of several"
    ids = tied_by(trace.units, x[1], of, few, why) if x[1].size > few else x[1][of]
    trace.axes[node.output[0]] = [x[0], ids, *(np.full(size, FIXED) for size in shape[2:])]
