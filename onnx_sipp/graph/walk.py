"""The tensors of a ModelProto, wherever they stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

__all__ = [
    "Holder",
    "all_nodes",
    "all_sites",
    "all_tensors",
    "has_control_flow",
    "holder_of",
    "is_constant_node",
    "main_opset",
    "nodes_within",
    "stored_tensors",
]

# What holds the elements of a stored constant.
Holder = TensorProto | AttributeProto

_NUMBERS = ("value_float", "value_floats", "value_int", "value_ints")


def all_sites(proto: ModelProto) -> Iterator[Holder]:
    """Every place of a model that holds the elements of a constant, in an order that stays.

    Yields:
        Each TensorProto (initializers, attributes, subgraphs, functions), and each attribute of a
        Constant node that holds plain numbers.
    """
    graphs: list[GraphProto] = [proto.graph]
    node_lists = [function.node for function in proto.functions]
    while graphs or node_lists:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            node_lists.append(graph.node)
            continue
        for node in node_lists.pop():
            for attribute in node.attribute:
                yield from attribute.tensors
                if attribute.HasField("t"):
                    yield attribute.t
                elif attribute.name in _NUMBERS and is_constant_node(node):
                    yield attribute
                graphs.extend(attribute.graphs)
                if attribute.HasField("g"):
                    graphs.append(attribute.g)


def all_nodes(proto: ModelProto) -> Iterator[NodeProto]:
    """Every node of a model: in subgraphs and functions too."""
    return nodes_within(proto.graph.node, *(function.node for function in proto.functions))


def nodes_within(*lists: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes of some lists, and those of their subgraphs."""
    node_lists = list(lists)
    while node_lists:
        for node in node_lists.pop():
            yield node
            for attribute in node.attribute:
                node_lists.extend(graph.node for graph in attribute.graphs)
                if attribute.HasField("g"):
                    node_lists.append(attribute.g.node)


def has_control_flow(proto: ModelProto) -> bool:
    """Whether values decide which nodes run, or how often: by an If or a Loop."""
    return any(node.op_type in ("If", "Loop") for node in all_nodes(proto))


def main_opset(proto: ModelProto) -> int:
    """Version of the standard operators, 0 if the model has none."""
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def all_tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every TensorProto of a model: initializers, attributes, subgraphs, functions."""
    return (site for site in all_sites(proto) if isinstance(site, TensorProto))


def is_constant_node(node: NodeProto) -> bool:
    """Whether a node is ONNX's Constant."""
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx") and bool(node.output)


def holder_of(node: NodeProto) -> Holder | None:
    """What holds the elements of a Constant node, None of any other, or if it has no numbers."""
    if is_constant_node(node):
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.HasField("t"):
                return attribute.t
            if attribute.name in _NUMBERS and not attribute.ref_attr_name:
                return attribute
    return None


def stored_tensors(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Constants of a graph, subgraphs apart: initializers and values of Constant nodes, by name."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        holder = holder_of(node)
        if isinstance(holder, TensorProto):
            yield node.output[0], holder
