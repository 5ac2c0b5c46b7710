"""Layers inside subgraphs: what they multiply is handed out, and multiplied again outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, helper

from onnx_sipp.graph.kinds import known_as, node_kind
from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.node import Label, attributes
from onnx_sipp.graph.tensors import FLOAT_TYPES

__all__ = ["Tap", "find_taps", "lowered_body"]

Labelled = tuple[NodeProto, Label]


@dataclass(frozen=True)
class Tap:
    """What a layer inside a subgraph multiplies, on its way out.

    Attributes:
        inner: nodes that make it inside the subgraph.
        name: of it, there.
        shape: that it can have without any element: zero along some axis.
        elem_type: of its elements.
        rank: number of its axes, None if it may have more than `shape`.
        layer: makes the layer that multiplies it outside, of its name there.
        label: of that layer.
    """

    inner: tuple[NodeProto, ...]
    name: str
    shape: tuple[int, ...]
    elem_type: int
    rank: int | None
    layer: Callable[[str], NodeProto]
    label: Label


def lowered_body(nodes: Sequence[NodeProto], path: str, builder: Builder) -> list[Labelled]:
    """Lower the nodes of a subgraph.

    Args:
        nodes: of the flat graph: called what they are called in reports, after the path.
        path: of the subgraph.
        builder: of the lowered graph.
    """
    builder.enter(nodes)
    return [
        lowered
        for node in nodes
        for lowered in builder.lower(node, Label(path + node.name, known_as(node)))
    ]


def find_taps(nodes: Sequence[Labelled], builder: Builder) -> list[Tap]:
    """The layers among lowered nodes of a subgraph."""
    taps = (_tap(node, label, builder) for node, label in nodes)
    return [tap for tap in taps if tap is not None]


def _tap(node: NodeProto, label: Label, builder: Builder) -> Tap | None:
    make = _MAKERS.get(node_kind(node))
    sides = [side for side in (0, 1) if side < len(node.input)]
    weights = [side for side in sides if builder.constants.is_weight(node.input[side])]
    if make is None or len(weights) != 1 or builder.is_constant(node.input[1 - weights[0]]):
        return None
    dims, elem_type = builder.constants.facts(node.input[weights[0]])
    if elem_type not in FLOAT_TYPES or 0 in dims:
        return None
    return make(node, weights[0], dims, elem_type, label, builder)


def _conv(
    node: NodeProto,
    side: int,
    dims: tuple[int, ...],
    elem_type: int,
    label: Label,
    builder: Builder,
) -> Tap | None:
    if side != 1:
        return None
    found = attributes(node)
    kernel = dims[2:]
    if node.op_type == "Conv":
        dilations = found.get("dilations") or [1] * len(kernel)
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
        channels = dims[1] * int(found.get("group", 1))
    else:
        reach, channels = [1] * len(kernel), dims[0]
    handed = builder.node("Identity", [node.input[0]])

    def layer(name: str) -> NodeProto:
        made = NodeProto()
        made.CopyFrom(node)
        del made.input[:], made.output[:]
        made.input.extend([name, node.input[1]])
        made.output.append(builder.fresh(f"{label.name}/output"))
        return made

    shape = (0, channels, *reach)
    return Tap((handed,), handed.output[0], shape, elem_type, len(shape), layer, label)


def _product(
    node: NodeProto,
    side: int,
    dims: tuple[int, ...],
    elem_type: int,
    label: Label,
    builder: Builder,
) -> Tap:
    """Gemm, and MatMul with a matrix on the right: the rows of the activation."""
    if node.op_type == "MatMul" and (side == 0 or len(dims) > 2):
        return _matmul(node, side, dims, elem_type, label, builder)
    found = attributes(node)
    transposed = node.op_type == "Gemm" and bool(found.get("transB" if side == 1 else "transA", 0))
    # On the left, the weight is [out, fan_in] as it is.
    outputs_first = node.op_type == "Gemm" and transposed == (side == 1)
    fan_in = dims[-1] if outputs_first else dims[0]
    inner = []
    rows = node.input[1 - side]
    if node.op_type == "Gemm" and bool(found.get("transA" if side == 1 else "transB", 0)) == (
        side == 1
    ):
        inner.append(builder.node("Transpose", [rows], perm=[1, 0]))
        rows = inner[-1].output[0]
    shape = builder.constant(np.array([-1, fan_in], np.int64), "rows")
    inner.append(builder.node("Reshape", [rows, shape]))

    def layer(name: str) -> NodeProto:
        inputs, output = [name, node.input[side]], builder.fresh(f"{label.name}/output")
        if not outputs_first:
            return helper.make_node("MatMul", inputs, [output])
        if builder.opset >= 11:
            return helper.make_node("Gemm", inputs, [output], transB=1)
        dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        none = builder.constant(np.zeros(dims[0], dtype), "none")  # without it, older ones fail
        return helper.make_node("Gemm", [*inputs, none], [output], transB=1, beta=0.0)

    handed = inner[-1].output[0]
    return Tap(tuple(inner), handed, (0, fan_in), elem_type, 2, layer, label)


def _matmul(
    node: NodeProto,
    side: int,
    dims: tuple[int, ...],
    elem_type: int,
    label: Label,
    builder: Builder,
) -> Tap:
    """MatMul with a constant on the left, or one that is batched."""
    axes = [1] * (len(dims) - 2)
    shape = (*axes, dims[-1], 0) if side == 0 else (*axes, 0, dims[-2])
    # Adding zeros of as many axes leaves the values, and gives them that many axes at least.
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    zeros = builder.constant(np.zeros([1] * len(dims), dtype), "zeros")
    handed = builder.node("Add", [node.input[1 - side], zeros])

    def layer(name: str) -> NodeProto:
        inputs = [name, name]
        inputs[side] = node.input[side]
        return helper.make_node("MatMul", inputs, [builder.fresh(f"{label.name}/output")])

    return Tap((handed,), handed.output[0], shape, elem_type, None, layer, label)


_MAKERS = {
    ("", "Conv"): _conv,
    ("", "ConvTranspose"): _conv,
    ("", "Gemm"): _product,
    ("", "MatMul"): _product,
}
