"""The graph through onnx-graphsurgeon: who reads which tensor, subgraphs included."""

from __future__ import annotations

import onnx_graphsurgeon as gs
from onnx import ModelProto
from onnx_graphsurgeon.logger import G_LOGGER

__all__ = ["Readers"]


class Readers:
    """Who reads a tensor of the main graph.

    Graphsurgeon is the lens only: nothing is ever written back from it, because its export drops
    what it does not know.

    Args:
        proto: the model.
    """

    def __init__(self, proto: ModelProto) -> None:
        severity, G_LOGGER.severity = G_LOGGER.severity, G_LOGGER.CRITICAL  # it prints to stdout
        try:
            graph = gs.import_onnx(proto)
        finally:
            G_LOGGER.severity = severity
        self._tensors = graph.tensors()
        self._place = {id(node): index for index, node in enumerate(graph.nodes)}
        self._outputs = {tensor.name for tensor in graph.outputs}

    def beyond(self, name: str, times: int, nodes: set[int]) -> str:
        """Name the readers of a tensor other than ``times`` reads by these nodes, "" if none.

        Args:
            name: of the tensor.
            times: how often the nodes are known to read it.
            nodes: places of the nodes in the main graph.
        """
        readers = self._tensors[name].outputs
        others = [node for node in readers if self._place.get(id(node)) not in nodes]
        if name in self._outputs:
            return "the graph's output"
        if others:
            return ", ".join(dict.fromkeys(f"{node.op} {node.name!r}" for node in others))
        return "" if len(readers) <= times else "the same node in another role"
