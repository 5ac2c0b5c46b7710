"""What nodes read, and an order in which they can run."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence

from onnx import GraphProto, NodeProto

__all__ = ["in_order", "only_needed", "reads", "subgraphs"]


def subgraphs(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    """The graphs inside a node, with the names of their attributes."""
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
        yield from ((attribute.name, graph) for graph in graphs)


def reads(node: NodeProto) -> Iterator[str]:
    """Inputs of a node, and what its subgraphs read from outside."""
    yield from (name for name in node.input if name)
    pending = [(graph, frozenset[str]()) for _, graph in subgraphs(node)]
    while pending:
        graph, outer = pending.pop()
        own = outer | {tensor.name for tensor in graph.initializer}
        own |= {tensor.values.name for tensor in graph.sparse_initializer}
        own |= {value.name for value in graph.input}
        own |= {name for inner in graph.node for name in inner.output}
        for inner in graph.node:
            yield from (name for name in inner.input if name and name not in own)
            pending.extend((inside, own) for _, inside in subgraphs(inner))
        yield from (value.name for value in graph.output if value.name not in own)


def in_order(nodes: Sequence[NodeProto]) -> list[int]:
    """Places of nodes in a topological order that leaves them where they are as far as possible.

    Nodes of a cycle, and those that depend on one, are left out.
    """
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [{producer[name] for name in reads(node) if name in producer} for node in nodes]
    followers: dict[int, list[int]] = defaultdict(list)
    for index, before in enumerate(needs):
        for other in before:
            followers[other].append(index)
    waiting = [len(before) for before in needs]
    ready = [index for index, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for follower in followers[index]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, follower)
    return order


def only_needed(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> list[NodeProto]:
    """The nodes that the outputs depend on, in their order."""
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    found: set[int] = set()
    pending = [producer[name] for name in outputs if name in producer]
    while pending:
        index = pending.pop()
        if index not in found:
            found.add(index)
            pending.extend(producer[name] for name in reads(nodes[index]) if name in producer)
    return [nodes[index] for index in sorted(found)]
