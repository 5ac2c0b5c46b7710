"""Who reads which constant of a lowered graph, seen through onnx-graphsurgeon.

Graphsurgeon is the lens only: it knows the scopes of nested graphs. Nothing is ever written back
from it, because its export drops what it does not know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, NodeProto
from onnx_graphsurgeon.logger import G_LOGGER

from onnx_sipp.graph.kinds import unique_labels
from onnx_sipp.graph.node import Label
from onnx_sipp.graph.order import subgraphs

__all__ = ["Read", "reads_of"]


@dataclass(frozen=True)
class Read:
    """A constant that reaches a node that is no constant itself, or an output of the graph.

    Attributes:
        reader: label of the node, with the path of subgraphs it lies in.
        name: of the constant.
        times: how many of the node's inputs it is.
        what: the reader, for people.
    """

    reader: str
    name: str
    times: int
    what: str


def reads_of(
    nodes: Sequence[tuple[NodeProto, Label]],
    outputs: Collection[str],
    constants: Collection[str],
    ways: Mapping[str, Sequence[str]],
) -> Iterator[Read]:
    """List the reads of constants, those from inside subgraphs included.

    A subgraph whose output is a constant from outside is none that onnxruntime loads.

    Args:
        nodes: of the main graph that are not constant.
        outputs: of the main graph.
        constants: names of the constants of the main graph.
        ways: of constants that nodes compute, those operators.
    """
    for name in outputs:
        if name in constants:
            yield Read("", name, 1, _via("the graph's output", ways.get(name, ())))
    graph = _imported([node for node, _ in nodes], constants)
    tensors = graph.tensors()
    names = {id(tensors[name]): name for name in constants if name in tensors}
    for node, (_, label) in zip(graph.nodes, nodes, strict=True):
        for reader, what, inputs in _readers(node, label.reader):
            found = Counter(names[id(tensor)] for tensor in inputs if id(tensor) in names)
            for name, times in found.items():
                yield Read(reader, name, times, _via(what, ways.get(name, ())))


def _imported(nodes: Sequence[NodeProto], constants: Collection[str]) -> Any:
    """A graph of these nodes, in which the constants are inputs without any payload."""
    proto = onnx.GraphProto(name="reads", node=map(_bare, nodes))
    proto.input.extend(onnx.ValueInfoProto(name=name) for name in sorted(constants))
    severity, G_LOGGER.severity = G_LOGGER.severity, G_LOGGER.CRITICAL  # it prints to stdout
    try:
        return gs.import_onnx(onnx.ModelProto(graph=proto, ir_version=onnx.IR_VERSION))
    finally:
        G_LOGGER.severity = severity


def _bare(node: NodeProto) -> NodeProto:
    """A node without attributes but graphs: graphsurgeon takes every text for UTF-8."""
    bare = NodeProto(op_type=node.op_type, domain=node.domain, name=node.name)
    bare.input.extend(node.input)
    bare.output.extend(node.output)
    for name, graph in subgraphs(node):
        inner = bare.attribute.add(name=name, type=AttributeProto.GRAPH).g
        inner.name = graph.name
        inner.node.extend(map(_bare, graph.node))
        inner.input.extend(graph.input)
        inner.output.extend(graph.output)
    return bare


def _readers(node: Any, label: str) -> Iterator[tuple[str, str, list[Any]]]:
    """Label, description and inputs of a node and of all nodes nested in it."""
    pending = [(node, label)]
    while pending:
        current, reader = pending.pop()
        what = f"{current.op} {current.name!r}"
        yield reader, what, current.inputs
        for attribute, value in current.attrs.items():
            for graph in value if isinstance(value, list) else [value]:
                if isinstance(graph, gs.Graph):
                    where = f"{reader} > {attribute}"
                    labels = unique_labels([(inner.name, inner.op) for inner in graph.nodes])
                    pending.extend(
                        (inner, f"{where} > {name}")
                        for inner, name in zip(graph.nodes, labels, strict=True)
                    )


def _via(reader: str, way: Sequence[str]) -> str:
    return f"{reader} via {', '.join(way)}" if way else reader
