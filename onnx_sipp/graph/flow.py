"""How tensors flow through the main graph: who makes them, who reads them, in what order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
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
        stage: that they belong to.
        nodes: their places, in an order they can run in.
        inputs: tensors they read that neither they nor constants provide.
        outputs: tensors they make that are asked for, or that later segments read.
        dead: tensors that nothing reads any more once this segment has run.
    """

    stage: int
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


def cut(
    flow: Flow,
    graph: GraphProto,
    wanted: list[set[str]],
    weigh: Callable[[int], int] | None = None,
    limit: int = 0,
) -> list[Segment]:
    """Part the graph so that each stage finds its tensors, every node running once.

    Args:
        flow: of the graph.
        graph: the main graph.
        wanted: for each stage in turn, the tensors it asks for.
        weigh: bytes of constants that a node reads; None to leave stages whole.
        limit: bytes of constants from which on a stage falls into several segments; a node that
            alone reads more has a segment of its own.

    Returns:
        Segments in the order to run them, at least one per stage; it may be empty.
    """
    done: set[int] = set()
    parts: list[tuple[int, list[int]]] = []
    for stage, names in enumerate(wanted):
        nodes = flow.needed(names, done)
        done |= {node for node in nodes if not flow.is_constant(node, graph)}
        part = sorted(nodes, key=flow.place.__getitem__)
        pieces = [part] if weigh is None else _pieces(flow, graph, part, names, weigh, limit)
        parts.extend((stage, piece) for piece in pieces)
    return _segments(flow, graph, parts, wanted)


def _pieces(
    flow: Flow,
    graph: GraphProto,
    part: list[int],
    names: set[str],
    weigh: Callable[[int], int],
    limit: int,
) -> list[list[int]]:
    """Part the nodes of a stage by what they weigh; constant nodes go wherever they are read."""
    pieces: list[list[int]] = [[]]
    size = 0
    for node in part:
        if flow.is_constant(node, graph):
            continue
        weight = weigh(node)
        # A node above the limit is alone; others weigh something only if they read constants.
        if pieces[-1] and (size > limit or (weight and size + weight > limit)):
            pieces.append([])
            size = 0
        pieces[-1].append(node)
        size += weight
    varying = {node for node in flow.place if not flow.is_constant(node, graph)}
    result = []
    for piece in pieces:
        read = {name for node in piece for name in flow.reads[node]}
        fixed = flow.needed(read | (names if piece is pieces[-1] else set()), varying)
        result.append(sorted([*piece, *fixed], key=flow.place.__getitem__))
    return result


def _segments(
    flow: Flow, graph: GraphProto, parts: list[tuple[int, list[int]]], wanted: list[set[str]]
) -> list[Segment]:
    stored = set(flow.constants.stored)
    made = [{n for node in part for n in graph.node[node].output if n} for _, part in parts]
    read = [
        {n for node in part for n in flow.reads[node]} - own - stored
        for (_, part), own in zip(parts, made, strict=True)
    ]
    # What a stage asks for must be there once the last of its segments has run.
    asked = [
        wanted[stage] if place + 1 == len(parts) or parts[place + 1][0] != stage else set()
        for place, (stage, _) in enumerate(parts)
    ]
    segments: list[Segment] = []
    later: set[str] = set()
    before: list[set[str]] = []
    for names in zip(made, read, asked, strict=True):
        before.append(set().union(*before[-1:], *names))
    for place in reversed(range(len(parts))):
        stage, part = parts[place]
        alive = {name for name in later if name not in flow.constants}
        outputs = {n for n in made[place] if n in asked[place] or n in alive}
        segments.append(
            Segment(
                stage=stage,
                nodes=tuple(part),
                inputs=tuple(sorted(read[place])),
                outputs=tuple(sorted(outputs)),
                dead=tuple(sorted(before[place] - later)),
            )
        )
        later = later | read[place] | asked[place]
    return segments[::-1]
