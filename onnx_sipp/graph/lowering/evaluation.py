"""Values of constants, as onnx's reference implementation computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, OperatorSetIdProto, helper
from onnx.reference import ReferenceEvaluator

from onnx_sipp.graph.node import NotPrunable

__all__ = ["Evaluator"]

Array = NDArray[Any]


class Evaluator:
    """Evaluates the constants of a graph.

    Args:
        opsets: that the graph's operators are from.
        read: gives the elements of a stored constant.

    Attributes:
        producers: the nodes that compute constants, by the names of these.
    """

    def __init__(self, opsets: list[OperatorSetIdProto], read: Callable[[str], Array]) -> None:
        self._opsets, self._read = opsets, read
        self.producers: dict[str, NodeProto] = {}
        self._values: dict[str, Array] = {}

    def add(self, node: NodeProto) -> None:
        """Make the outputs of a node known."""
        self.producers.update((name, node) for name in node.output if name)

    def value(self, name: str) -> Array:
        """Evaluate a constant.

        Raises:
            NotPrunable: onnx's reference implementation cannot.
        """
        for node in self.upstream(name):
            if not all(output in self._values for output in node.output if output):
                inputs = [self._value(n) if n else None for n in node.input]
                self._values.update(zip(node.output, self.run(node, inputs), strict=False))
        return self._value(name)

    def upstream(self, name: str) -> list[NodeProto]:
        """All nodes that a constant is computed by, each after those that it needs."""
        order: list[NodeProto] = []
        seen: set[int] = set()
        pending = [(name, False)]
        while pending:
            current, ready = pending.pop()
            node = self.producers.get(current)
            if node is None or (id(node) in seen and not ready):
                continue
            if ready:
                order.append(node)
                continue
            seen.add(id(node))
            pending.append((current, True))
            pending.extend((n, False) for n in node.input if n)
        return order

    def run(self, node: NodeProto, inputs: list[Array | None]) -> list[Array]:
        """Evaluate one node.

        Args:
            node: of the graph.
            inputs: None where it has none.

        Returns:
            Its outputs; those without a name are empty.

        Raises:
            NotPrunable: onnx's reference implementation cannot.
        """
        given = {n: v for n, v in zip(node.input, inputs, strict=True) if v is not None}
        outputs = [name for name in node.output if name]
        graph = onnx.GraphProto(name="constant", node=[node])
        graph.input.extend(onnx.ValueInfoProto(name=name) for name in given)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        model = helper.make_model(graph, opset_imports=self._opsets)
        try:
            results = ReferenceEvaluator(model).run(None, given)
        except Exception as error:  # whatever an operator of the reference raises
            raise NotPrunable(f"{node.op_type} cannot be evaluated: {error}") from error
        made = dict(zip(outputs, results, strict=True))
        return [made.get(name, np.zeros(0, np.int64)) for name in node.output]

    def _value(self, name: str) -> Array:
        return self._values[name] if name in self._values else self._read(name)
