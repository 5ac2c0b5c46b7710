"""Spare biases: zeros in the lowered graph where a Conv or Gemm of the original has no bias.

They change nothing there, and give the refit a place for the means. One that is written becomes an
initializer of the original, and the third input of its node.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from onnx_sipp.graph.kinds import node_kind
from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.node import Label, attributes
from onnx_sipp.graph.tensors import is_float, numpy_dtype

__all__ = ["with_spare_biases"]

Labelled = tuple[NodeProto, Label]
Nodes = Sequence[Labelled]


def with_spare_biases(nodes: Nodes, builder: Builder) -> tuple[list[Labelled], dict[str, str]]:
    """Give a bias of zeros to every layer that lacks one and could have it.

    Args:
        nodes: of the lowered graph.
        builder: of the graph; gets the new constants.

    Returns:
        The nodes, and by name of a new bias the output of the node that it belongs to.
    """
    model = builder.model.proto
    if model.ir_version < 4:  # then an initializer has to be an input of the graph as well
        return list(nodes), {}
    originals = {name: node for node in model.graph.node for name in node.output}
    taken = set(_names(model))
    result: list[Labelled] = []
    spare: dict[str, str] = {}
    for node, label in nodes:
        original = originals.get(node.output[0]) if node.output else None
        zeros = None if original is None else _zeros(node, original, builder)
        if original is None or zeros is None:
            result.append((node, label))
            continue
        name = builder.fresh(f"{original.input[1]}_bias")
        while name in taken:
            name = builder.fresh(name)
        builder.constants.fixed[name] = numpy_helper.from_array(zeros, name)
        spare[name] = node.output[0]
        made = NodeProto()
        made.CopyFrom(node)
        made.ClearField("input")
        made.input.extend([*node.input[:2], name])
        result.append((made, label))
    return result, spare


def _zeros(node: NodeProto, original: NodeProto, builder: Builder) -> np.ndarray[Any, Any] | None:
    """A bias of zeros for a node of the lowered graph, None if it can have none."""
    same = (
        node_kind(node) == node_kind(original)
        and node.output == original.output
        and node.input[:1] == original.input[:1]
    )
    if not same or node_kind(node) not in {("", "Conv"), ("", "Gemm")}:
        return None
    if any(len(n.input) < 2 or any(n.input[2:]) for n in (node, original)):
        return None
    # Beside a quantised weight, runtimes want a quantised bias.
    routes = builder.constants.flat.computed.get(original.input[1], ())
    if builder.is_constant(node.input[0]) or "DequantizeLinear" in routes:
        return None
    weight = node.input[1]
    if weight in builder.constants.virtual:
        made = builder.constants.virtual[weight]
        dims, dtype = made.ids.shape, made.dtype
    elif weight in builder.constants.twins:
        tensor = builder.constants.flat.stored[weight]
        dims, dtype = tuple(tensor.dims), numpy_dtype(tensor)
    else:
        return None
    if len(dims) < 2 or not is_float(dtype):
        return None
    rows = node.op_type == "Conv" or attributes(node).get("transB", 0)
    return np.zeros(dims[0] if rows else dims[1], dtype)


def _names(model: ModelProto) -> Iterator[str]:
    """Names of all tensors, those of subgraphs and functions included."""
    graphs: list[GraphProto] = [model.graph]
    node_lists = [function.node for function in model.functions]
    while graphs or node_lists:
        if graphs:
            graph = graphs.pop()
            yield from (value.name for value in (*graph.input, *graph.output))
            yield from (tensor.name for tensor in graph.initializer)
            yield from (tensor.values.name for tensor in graph.sparse_initializer)
            node_lists.append(graph.node)
            continue
        for node in node_lists.pop():
            yield from (*node.input, *node.output)
            for attribute in node.attribute:
                graphs.extend([attribute.g] if attribute.HasField("g") else attribute.graphs)
