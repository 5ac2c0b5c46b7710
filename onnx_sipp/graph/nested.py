"""Nodes inside subgraphs that weigh constants and are no layers: what keeps them from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator

from onnx import NodeProto

from onnx_sipp.graph.kinds import Skipped, as_layer, known_as, node_labels
from onnx_sipp.graph.node import Constants, Label, NotPrunable
from onnx_sipp.graph.order import subgraphs

__all__ = ["skipped_inside"]


def skipped_inside(
    nodes: Iterable[tuple[NodeProto, Label]],
    constants: Constants,
    known: Collection[str],
    reasons: dict[str, str],
) -> Iterator[Skipped]:
    """List what weighs a constant among nodes and in their subgraphs, at any depth.

    Args:
        nodes: with their labels.
        constants: of the main graph; bodies have none of their own.
        known: names of nodes that are layers, or are listed already.
        reasons: why layers inside a node could not be reached, by its name.
    """
    pending = deque((node, label, "it cannot be observed") for node, label in nodes)
    while pending:
        node, label, reason = pending.popleft()
        if label.name not in known:
            try:
                layer = as_layer(node, label, -1, constants)
            except NotPrunable as found:
                yield Skipped(label.name, label.op_type, found.parameters, str(found))
            else:
                if layer is not None:
                    yield Skipped(label.name, label.op_type, layer.view.size, reason)
        reason = reasons.get(label.name, reason)
        for name, graph in subgraphs(node):
            path = f"{label.reader} > {name} > "
            names = node_labels(graph.node)
            pending.extend(
                (inner, Label(path + own, known_as(inner)), reason)
                for inner, own in zip(graph.node, names, strict=True)
            )
