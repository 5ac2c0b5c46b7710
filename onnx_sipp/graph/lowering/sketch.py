"""Writes down the nodes that a rule puts in the place of a node, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.node import NotPrunable

__all__ = ["Sketch", "copied"]


class Sketch:
    """Nodes of ONNX's own operators, in forms that every opset has.

    Args:
        builder: of the lowered graph.
        dtype: of the real numbers that the node works with.

    Attributes:
        nodes: what was written down so far.
    """

    def __init__(self, builder: Builder, dtype: Any = np.float32) -> None:
        self.builder, self._dtype = builder, dtype
        self.nodes: list[NodeProto] = []

    def add(self, op_type: str, *inputs: str, part: str = "", **attributes: Any) -> str:
        """Write down a node of one output, and return the name of that.

        Args:
            op_type: operator.
            inputs: names.
            part: what of the original node it is, if it is a layer that needs a name of its own.
            attributes: of the node.
        """
        node = self.builder.node(op_type, inputs, **attributes)
        self.nodes.append(self.builder.named(node, part) if part else node)
        return str(node.output[0])

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """A constant that is no weight."""
        return self.builder.constant(np.asarray(values, dtype))

    def number(self, value: float) -> str:
        """A real number."""
        return self.constant(value, self._dtype)

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        """Reshape; 0 keeps a dimension, -1 takes what is left."""
        return self.add("Reshape", name, self.constant(shape))

    def slice(self, name: str, axis: int, start: int, end: int) -> str:
        """Part of an axis that is counted from the front; a negative end is counted from behind."""
        if self.builder.opset < 10:
            return self.add("Slice", name, axes=[axis], starts=[start], ends=[end])
        return self.add("Slice", name, *(self.constant([at]) for at in (start, end, axis)))

    def cast(self, name: str, data_type: int = TensorProto.FLOAT) -> str:
        """Another element type."""
        return self.add("Cast", name, to=data_type)

    def bias(self, name: str, operand: str, index: NDArray[np.integer] | None = None) -> str:
        """Add a constant operand, or a part of it, so that a refit finds it as the bias.

        Without effect if there is none, if it is no constant, or if it is not stored as it is
        used: then it cannot take up a change.
        """
        if not operand or not self.builder.is_constant(operand):
            return name
        try:
            stored = self.builder.weight(operand, index)
        except NotPrunable:
            return name
        return self.add("Add", name, stored)


def copied(node: NodeProto) -> NodeProto:
    """A node that may be changed."""
    result = NodeProto()
    result.CopyFrom(node)
    return result
