"""Nodes that weigh constants inside subgraphs and model-local functions: listed, not pruned."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from onnx import GraphProto, ModelProto, NodeProto

from onnx_sipp.graph.kinds import Skipped, as_layer, known_as, node_kind, node_labels
from onnx_sipp.graph.node import Constants, Label, NotPrunable
from onnx_sipp.graph.walk import stored_tensors

__all__ = ["functions_called", "in_functions", "in_subgraphs"]


def in_subgraphs(node: NodeProto, label: str, constants: Constants) -> Iterator[Skipped]:
    """List what weighs a constant in the subgraphs of a node, at any depth.

    Args:
        node: for instance an If.
        label: its name in the report.
        constants: that its subgraphs see from outside.
    """
    pending = deque([(label, node, constants)])
    while pending:
        path, parent, outer = pending.popleft()
        for name, graph in _subgraphs(parent):
            where = f"{path} > {name}"
            inner = _within(graph, outer)
            labels = node_labels(graph.node)
            reason = "it lies in a subgraph, not supported yet"
            yield from _weighing(graph.node, labels, where, inner, reason)
            pending.extend(
                (f"{where} > {name}", node, inner)
                for name, node in zip(labels, graph.node, strict=True)
            )


def functions_called(proto: ModelProto) -> set[tuple[str, str]]:
    """Domain and name of the model's own functions."""
    return {(function.domain, function.name) for function in proto.functions}


def in_functions(proto: ModelProto, constants: Constants) -> Iterator[Skipped]:
    """List what weighs a constant in the model's own functions.

    Args:
        proto: the model.
        constants: of its main graph; those that it passes to a function are constants there.
    """
    for function in proto.functions:
        kind = (function.domain, function.name)
        calls = [node for node in proto.graph.node if node_kind(node) == kind]
        passed = {
            inside: constants.stored[outside]
            for call in calls
            for inside, outside in zip(function.input, call.input, strict=False)
            if outside in constants.stored
        }
        graph = GraphProto(node=function.node)
        inner = _within(graph, Constants(passed, {}))
        labels = node_labels(graph.node)
        where = f"function {function.name}"
        reason = "it lies in a model-local function, not supported yet"
        yield from _weighing(graph.node, labels, where, inner, reason)
        for label, node in zip(labels, graph.node, strict=True):
            yield from in_subgraphs(node, f"{where} > {label}", inner)


def _subgraphs(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
        yield from ((attribute.name, graph) for graph in graphs)


def _within(graph: GraphProto, outer: Constants) -> Constants:
    """Constants that the nodes of an inner graph see, its own and those of the outer one."""
    return Constants.of(graph, {**outer.stored, **dict(stored_tensors(graph))}, outer)


def _weighing(
    nodes: Sequence[NodeProto], labels: Sequence[str], where: str, constants: Constants, reason: str
) -> Iterator[Skipped]:
    for index, (node, label) in enumerate(zip(nodes, labels, strict=True)):
        name = f"{where} > {label}"
        try:
            layer = as_layer(node, Label(name, known_as(node)), index, constants)
        except NotPrunable as found:
            yield Skipped(name, known_as(node), found.parameters, str(found))
        else:
            if layer is not None:
                yield Skipped(name, layer.op_type, layer.view.size, reason)
