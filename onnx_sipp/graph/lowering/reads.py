"""Who reads which constant of a lowered graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import GraphProto, NodeProto

from onnx_sipp.graph.kinds import node_labels
from onnx_sipp.graph.node import Label

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
    nodes: Iterable[tuple[NodeProto, Label]],
    outputs: Iterable[str],
    is_constant: Callable[[str], bool],
    ways: Mapping[str, Sequence[str]],
) -> Iterator[Read]:
    """List the reads of constants, those from inside subgraphs included.

    Args:
        nodes: of the main graph that are not constant.
        outputs: of the main graph.
        is_constant: whether a name of the main graph is a constant.
        ways: of constants that nodes compute, those operators.
    """

    def via(reader: str, name: str) -> str:
        return f"{reader} via {', '.join(ways[name])}" if name in ways else reader

    for name in outputs:
        if is_constant(name):
            yield Read("", name, 1, via("the graph's output", name))
    pending = [(node, label.reader, is_constant) for node, label in nodes]
    while pending:
        node, reader, known = pending.pop()
        for name, times in Counter(name for name in node.input if name and known(name)).items():
            yield Read(reader, name, times, via(f"{node.op_type} {node.name!r}", name))
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
            for graph in graphs:
                own = _made_inside(graph)

                def seen(
                    name: str, own: set[str] = own, known: Callable[[str], bool] = known
                ) -> bool:
                    return name not in own and known(name)

                where = f"{reader} > {attribute.name} > "
                labels = node_labels(graph.node)
                pending.extend(
                    (inner, where + label, seen)
                    for inner, label in zip(graph.node, labels, strict=True)
                )
                for value in graph.output:
                    if seen(value.name):
                        what = via(f"{node.op_type} {node.name!r}", value.name)
                        yield Read(where, value.name, 1, what)


def _made_inside(graph: GraphProto) -> set[str]:
    names = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    names |= {tensor.values.name for tensor in graph.sparse_initializer}
    return names | {name for node in graph.node for name in node.output}
