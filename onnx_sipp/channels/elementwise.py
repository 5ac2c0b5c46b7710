"""Rules for operators that treat the elements of a channel alike, whatever the channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_sipp.channels.trace import Axes, Edit, Keeps, Stuck, Trace, called
from onnx_sipp.channels.units import FIXED
from onnx_sipp.graph.dead.elementwise import ELEMENTWISE as KNOWN
from onnx_sipp.graph.node import attributes

__all__ = ["ELEMENTWISE", "elementwise", "expand", "joined_axes", "layer_norm", "per_channel",
           "quantizing", "softmax"]  # fmt: skip

ELEMENTWISE = (
    *KNOWN, "And", "BitShift", "Dropout", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN",
    "Less", "LessOrEqual", "Mod", "Mul", "Not", "Or", "Where", "Xor",
)  # fmt: skip


def elementwise(node: NodeProto, index: int, trace: Trace) -> None:
    """Operands run side by side, broadcast."""
    del index
    operands = [trace.of(name) for name in node.input if name]
    if node.op_type in ("Dropout", "Clip"):
        operands = operands[:1]
    if trace.opset < 7 and len(operands) > 1:
        operands = _aligned(node, operands)
    for name in node.output:
        if name:
            trace.axes[name] = joined_axes(trace, operands, trace.shape(name), called(node))


def expand(node: NodeProto, index: int, trace: Trace) -> None:
    """Expand: broadcasting to a shape."""
    shape = trace.shape(node.output[0])
    result = joined_axes(trace, [trace.of(node.input[0])], shape, called(node))
    trace.axes[node.output[0]] = result
    if node.input[1] not in trace.constants:
        return
    old = trace.value(node.input[1])

    def value(keeps: Keeps) -> NDArray[Any]:
        lengths = [int(keeps(ids).sum()) for ids in result[len(result) - old.size :]]
        return np.where(old > 1, lengths, old).astype(old.dtype)

    trace.edits.append(Edit(index, 1, value))


def _aligned(node: NodeProto, operands: list[Axes]) -> list[Axes]:
    """Before opset 7, the second operand of two could be aligned by an attribute."""
    found = attributes(node)
    if not found.get("broadcast", 0) or len(operands) != 2:
        return operands
    first, second = operands
    start = found.get("axis", len(first) - len(second))
    start += len(first) if start < 0 else 0
    rest = len(first) - start - len(second)
    return [first, [*second, *(np.full(1, FIXED) for _ in range(rest))]]


def joined_axes(trace: Trace, operands: list[Axes], shape: tuple[int, ...], what: str) -> Axes:
    """Join the axes of operands that are broadcast to a shape."""
    result: Axes = []
    for place in range(-len(shape), 0):
        size = shape[place]
        found = [axes[place] for axes in operands if len(axes) >= -place]
        long = [ids for ids in found if ids.size == size and size > 1]
        for other in long[1:]:
            trace.units.join(long[0], other, f"{what} combines it with something that stays")
        result.append(long[0] if long else np.full(size, FIXED))
    # The first operand may be fixed where another is not; then that one is fixed by now.
    return result


def per_channel(node: NodeProto, index: int, trace: Trace) -> None:
    """BatchNormalization, InstanceNormalization: parameters for every channel along axis 1."""
    del index
    if any(node.output[1:]):
        raise Stuck("it hands out statistics")
    x = trace.of(node.input[0])
    for name in node.input[1:]:
        trace.units.join(x[1], trace.of(name)[0], f"{called(node)} has parameters that stay")
    trace.axes[node.output[0]] = [np.full(s.size, FIXED) if a > 1 else s for a, s in enumerate(x)]


def layer_norm(node: NodeProto, index: int, trace: Trace) -> None:
    """Normalisation over the last axes: each of those places changes all others."""
    del index
    x = trace.of(node.input[0])
    axis = int(attributes(node).get("axis", -1)) % len(x)
    why = f"{called(node)} normalises over them: without some, the others would change"
    for ids in (*x[axis:], *(axes for name in node.input[1:] if name for axes in trace.of(name))):
        trace.units.fix(ids, why)
    trace.axes[node.output[0]] = [*x[:axis], *(np.full(ids.size, FIXED) for ids in x[axis:])]


def softmax(node: NodeProto, index: int, trace: Trace) -> None:
    """Softmax and its kin along one axis; before opset 13 along all from there on."""
    del index
    x = trace.of(node.input[0])
    old = trace.opset < 13 and node.op_type != "LpNormalization"
    axis = int(attributes(node).get("axis", 1 if old else -1)) % len(x)
    mixed = range(axis, len(x)) if old else (axis,)
    for place in mixed:
        trace.units.fix(x[place], f"{called(node)} compares them with each other")
    trace.axes[node.output[0]] = list(x)


def quantizing(node: NodeProto, index: int, trace: Trace) -> None:
    """QuantizeLinear, DequantizeLinear: scales for all, or for every place along an axis."""
    del index
    x = trace.of(node.input[0])
    axis = int(attributes(node).get("axis", 1))
    for name in node.input[1:]:
        parameters = trace.of(name) if name else []
        if len(parameters) > 1:
            raise Stuck("it has scales for blocks")
        if parameters and parameters[0].size > 1:
            why = f"{called(node)} has scales that stay"
            trace.units.join(x[axis % len(x)], parameters[0], why)
    trace.axes[node.output[0]] = list(x)
