"""The tensors of a ModelProto, wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import GraphProto, ModelProto, TensorProto

__all__ = ["all_tensors", "stored_tensors"]


def all_tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every TensorProto of a model: initializers, attributes, subgraphs, functions."""
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
                graphs.extend(attribute.graphs)
                if attribute.HasField("g"):
                    graphs.append(attribute.g)


def stored_tensors(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Constants of a graph, subgraphs apart: initializers and values of Constant nodes, by name."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and node.output:
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.HasField("t"):
                    yield node.output[0], attribute.t
