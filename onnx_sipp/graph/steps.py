"""The way from the inputs of a graph through its layers to the outputs, for people to look at."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from onnx_sipp.graph.kinds import node_labels
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.order import in_order, reads

__all__ = ["Step", "steps_of"]

# They read what a tensor is like, not what is in it.
_SHAPES_ONLY = frozenset({"Shape", "Size"})
# What lies in a node is named after it.
_INSIDE = re.compile(r" > | \(")


@dataclass(frozen=True)
class Step:
    """An input, an output, a node with layers, or one where different ways meet.

    Attributes:
        name: of the node or tensor.
        op_type: of the node; ``input`` or ``output`` for tensors.
        layers: names of the layers in it.
        sources: numbers of the steps that it comes from, ascending.
    """

    name: str
    op_type: str
    layers: tuple[str, ...]
    sources: tuple[int, ...]


def steps_of(model: Model, layers: Iterable[str]) -> list[Step]:
    """Follow the main graph; nodes without layers are passed through, unless ways meet in them.

    Args:
        model: is not changed.
        layers: names of its layers; those inside a node belong to the node.

    Returns:
        In an order in which every step comes after its sources.
    """
    graph = model.proto.graph
    labels = node_labels(graph.node)
    inside = _by_node(labels, layers)
    steps: list[Step] = []
    # By tensor, the steps that it comes from.
    origin: dict[str, frozenset[int]] = {}

    def add(step: Step) -> frozenset[int]:
        steps.append(step)
        return frozenset([len(steps) - 1])

    for value in graph.input:
        if value.name not in model.stored:
            origin[value.name] = add(Step(value.name, "input", (), ()))
    for index in in_order(graph.node):
        node, label = graph.node[index], labels[index]
        if node.op_type in _SHAPES_ONLY:
            continue
        ways = {origin[name] for name in reads(node) if origin.get(name)}
        sources = frozenset[int]().union(*ways)
        if label in inside or len(ways) > 1:
            found = tuple(inside.get(label, ()))
            sources = add(Step(label, node.op_type, found, tuple(sorted(sources))))
        origin.update({name: sources for name in node.output if name})
    for value in graph.output:
        add(Step(value.name, "output", (), tuple(sorted(origin.get(value.name, ())))))
    return steps


def _by_node(labels: Iterable[str], layers: Iterable[str]) -> dict[str, list[str]]:
    """The layers that are called like a node, or lie in one, by its label."""
    known = set(labels)
    found: dict[str, list[str]] = defaultdict(list)
    for name in layers:
        heads = [name[: mark.start()] for mark in _INSIDE.finditer(name)]
        owner = next((head for head in (name, *reversed(heads)) if head in known), None)
        if owner is not None:
            found[owner].append(name)
    return found
