"""How tensors flow through the main graph: who makes them, who reads them, in what order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from onnx import GraphProto

from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import Constants
from onnx_sipp.graph.order import in_order, reads

__all__ = ["Flow", "Segment", "cut"]


@dataclass(frozen=True)
class Segment:
    """Some nodes of the main graph that are run together.

    Attributes:
        nodes: their places, in an order they can run in.
        inputs: tensors they read that neither they nor constants provide.
        outputs: tensors they make that are asked for, or that later segments read.
        dead: tensors that nothing reads any more once this segment has run.
    """

    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dead: tuple[str, ...]


class Flow:
    """Producers, readers and order of the nodes of a model's main graph.

    Args:
        model: is not changed.
    """

    def __init__(self, model: Model) -> None:
        graph = model.proto.graph
        self.constants = Constants.of(graph, model.stored)
        self.reads = [tuple(reads(node)) for node in graph.node]
        self.producer = {
            name: index for index, node in enumerate(graph.node) for name in node.output if name
        }
        self.outputs = {value.name for value in graph.output}
        self.readers: dict[str, list[int]] = defaultdict(list)
        for index, names in enumerate(self.reads):
            for name in names:
                self.readers[name].append(index)
        self.order = in_order(graph.node)
        self.place = {index: rank for rank, index in enumerate(self.order)}

    def needed(self, names: Iterable[str], done: set[int]) -> set[int]:
        """Nodes that must run to provide tensors, beyond those done; constants included."""
        found: set[int] = set()
        pending = [name for name in names if name in self.producer]
        while pending:
            node = self.producer[pending.pop()]
            if node in found or node in done:
                continue
            found.add(node)
            pending.extend(name for name in self.reads[node] if name in self.producer)
        return found

    def is_constant(self, node: int, graph: GraphProto) -> bool:
        """Whether a node computes from constants alone; it may run again wherever it is read."""
        return all(name in self.constants for name in graph.node[node].output if name)

    def upstream(self, name: str) -> set[int]:
        """All nodes that a tensor depends on."""
        return self.needed([name], set())


def cut(flow: Flow, graph: GraphProto, wanted: list[set[str]]) -> list[Segment]:
    """Part the graph so that each stage finds its tensors, every node running once.

    Args:
        flow: of the graph.
        graph: the main graph.
        wanted: for each stage in turn, the tensors it asks for.

    Returns:
        One segment per stage; it may be empty.
    """
    done: set[int] = set()
    parts: list[list[int]] = []
    for names in wanted:
        nodes = flow.needed(names, done)
        done |= {node for node in nodes if not flow.is_constant(node, graph)}
        parts.append(sorted(nodes, key=flow.place.__getitem__))
    made = [{n for node in part for n in graph.node[node].output if n} for part in parts]
    read = [
        {n for node in part for n in flow.reads[node]} - made[stage] - set(flow.constants.stored)
        for stage, part in enumerate(parts)
    ]
    segments = []
    for stage, part in enumerate(parts):
        later = set().union(*(read[s] | wanted[s] for s in range(stage + 1, len(parts))))
        alive = {name for name in later if name not in flow.constants}
        outputs = {n for n in made[stage] if n in wanted[stage] or n in alive}
        before = set().union(*made[: stage + 1], *read[: stage + 1], *wanted[: stage + 1])
        segments.append(
            Segment(
                nodes=tuple(part),
                inputs=tuple(sorted(read[stage])),
                outputs=tuple(sorted(outputs)),
                dead=tuple(sorted(before - later)),
            )
        )
    return segments
