"""Rules for operators that sum over channels."""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import NodeProto

from onnx_sipp.channels.elementwise import joined_axes
from onnx_sipp.channels.trace import Axes, Contraction, Edit, Product, Stuck, Trace, called
from onnx_sipp.channels.units import FIXED, Ids, tied_by
from onnx_sipp.graph.node import attributes

__all__ = ["convolution", "gemm", "matmul"]

# Groups with at least so many channels lose some in each; narrower ones go as a whole.
_WIDE_GROUP = 16


def convolution(node: NodeProto, index: int, trace: Trace) -> None:
    """Conv, ConvTranspose and FusedConv, in groups or not."""
    x, weight = trace.of(node.input[0]), trace.of(node.input[1])
    shape = trace.shape(node.output[0])
    groups = int(attributes(node).get("group", 1))
    transposed = node.op_type == "ConvTranspose"
    why = f"{called(node)} reads"
    for ids in weight[2:]:
        trace.units.fix(ids, f"places of the kernel of {called(node)}")
    inputs, outputs = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
    wide = groups == 1 or min(x[1].size, shape[1]) // groups >= _WIDE_GROUP
    if groups == 1:
        trace.units.join(x[1], inputs, f"{why} channels that stay")
    elif wide:
        outputs = _in_each_group(node, trace, groups, x[1], weight)
    else:
        outputs = _whole_groups(node, index, trace, groups, x[1], weight)
    places = prod(ids.size for ids in x[2:]) if transposed else prod(shape[2:])
    factor = float(x[0].size * places * prod(ids.size for ids in weight[2:]))
    if wide:
        trace.contractions.append(Contraction(index, x[1].reshape(groups, -1)))
        trace.products.append(Product(index, factor, (weight[0], weight[1])))
    else:
        trace.products.append(Product(index, factor * weight[1].size, (weight[0],)))
    if len(node.input) > 2 and node.input[2]:
        trace.units.join(outputs, trace.of(node.input[2])[0], f"the bias of {called(node)} stays")
    result = [x[0], outputs, *(np.full(size, FIXED) for size in shape[2:])]
    if len(node.input) > 3 and node.input[3]:  # FusedConv adds another tensor
        result = joined_axes(trace, [result, trace.of(node.input[3])], shape, called(node))
    trace.axes[node.output[0]] = result


def _in_each_group(node: NodeProto, trace: Trace, groups: int, x: Ids, weight: Axes) -> Ids:
    """Tie the same places of every group; gives the units of the outputs."""
    units, why = trace.units, f"{called(node)} works in groups of equal size"
    outs = trace.shape(node.output[0])[1] // groups
    each = tied_by(units, x, np.arange(x.size) % (x.size // groups), x.size // groups, why)
    places = np.arange(groups * outs) % outs
    if node.op_type == "ConvTranspose":
        units.join(x, weight[0], why)
        return weight[1][places]
    units.join(each, weight[1], why)
    return tied_by(units, weight[0], places, outs, why)[places]


def _whole_groups(
    node: NodeProto, index: int, trace: Trace, groups: int, x: Ids, weight: Axes
) -> Ids:
    """Tie all of each group, as in a depthwise convolution; gives the units of the outputs."""
    units, why = trace.units, f"{called(node)} works in groups"
    units.fix(weight[1], f"channels inside a group of {called(node)}")
    whole = tied_by(units, x, np.arange(x.size) // (x.size // groups), groups, why)
    units.join(weight[0], np.repeat(whole, weight[0].size // groups), why)
    trace.edits.append(
        Edit(index, "group", lambda keeps: np.array(max(1, int(keeps(whole).sum()))))
    )
    return np.repeat(whole, trace.shape(node.output[0])[1] // groups)


def gemm(node: NodeProto, index: int, trace: Trace) -> None:
    """Gemm, with either operand transposed."""
    found = attributes(node)
    left, right = list(trace.of(node.input[0])), list(trace.of(node.input[1]))
    rows, inner = left[::-1] if found.get("transA", 0) else left
    stored, outputs = right[::-1] if found.get("transB", 0) else right
    _contract(node, index, trace, (inner, stored), (rows, outputs))
    result: Axes = [rows, outputs]
    if len(node.input) > 2 and node.input[2]:
        operands = [result, trace.of(node.input[2])]
        result = joined_axes(trace, operands, trace.shape(node.output[0]), called(node))
    trace.axes[node.output[0]] = result


def matmul(node: NodeProto, index: int, trace: Trace) -> None:
    """MatMul: batches side by side, and a sum over the inner axis."""
    left, right = trace.of(node.input[0]), trace.of(node.input[1])
    if min(len(left), len(right)) < 2:
        raise Stuck("it multiplies vectors")
    shape = trace.shape(node.output[0])
    batches = joined_axes(trace, [left[:-2], right[:-2]], shape[:-2], called(node))
    inner = (left[-1], right[-2])
    if node.input[0] in trace.constants:
        inner = inner[::-1]
    _contract(node, index, trace, inner, (*batches, left[-2], right[-1]))
    trace.axes[node.output[0]] = [*batches, left[-2], right[-1]]


def _contract(
    node: NodeProto, index: int, trace: Trace, inner: tuple[Ids, Ids], outer: tuple[Ids, ...]
) -> None:
    """Join the inner axes, that of the activation first, and count what is multiplied."""
    trace.units.join(*inner, f"{called(node)} reads channels that stay")
    constant = [name in trace.constants for name in node.input[:2]]
    if not any(constant):
        trace.units.fix(inner[0], f"{called(node)} multiplies two activations along them")
    elif not all(constant):
        trace.contractions.append(Contraction(index, inner[0][None]))
    trace.products.append(Product(index, 1.0, (inner[0], *outer)))
