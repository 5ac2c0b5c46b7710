"""What the rules for single nodes can ask: facts, shapes and constants of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto
from onnx.reference import ReferenceEvaluator

from onnx_sipp.graph.dead.fields import Field
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import Constants, is_deterministic
from onnx_sipp.graph.shapes import Shape, TensorKind

__all__ = ["TRIALS", "Scope"]

Array = NDArray[Any]

# Lengths that stand for open axes when a node is tried out: what depends on them differs.
TRIALS = (5, 7)
# Constants beyond this many elements are weights or tables; nothing is to be learned from them.
_LARGE = 1 << 20
# Tensors up to this size are computed beforehand, as shapes are.
_TINY = 64


@dataclass
class Scope:
    """Facts about the tensors of a graph, growing as the nodes are gone through.

    Attributes:
        model: whose main graph it is.
        constants: of that graph.
        kinds: element types and shapes.
        values: facts by name of the tensor.
        sizes: by trial and name, small tensors that follow from shapes and constants.
    """

    model: Model
    constants: Constants
    kinds: dict[str, TensorKind]
    values: dict[str, Field] = field(default_factory=dict)
    sizes: dict[int, dict[str, Array]] = field(default_factory=lambda: {t: {} for t in TRIALS})

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        imports = self.model.proto.opset_import
        return max((i.version for i in imports if i.domain in ("", "ai.onnx")), default=1)

    def shape(self, name: str) -> Shape | None:
        """Shape of a tensor, None if not even its rank is known.

        Facts may know the length of an axis that shape inference has left open.
        """
        kind, facts = self.kinds.get(name), self.values.get(name)
        if kind is None or facts is None or facts.ndim != len(kind.shape):
            return None if kind is None else kind.shape
        known = (length if length > 1 else None for length in facts.shape)
        return tuple(size or length for size, length in zip(kind.shape, known, strict=True))

    def value(self, name: str) -> Field | None:
        """Facts about a tensor, None if its rank is unknown."""
        if name not in self.values and name in self.constants.stored:
            values = self._stored(name)
            if values is not None:
                self.values[name] = values.astype(np.float64)
        if name not in self.values and (shape := self.shape(name)) is not None:
            self.values[name] = np.full((1,) * len(shape), np.nan)
        return self.values.get(name)

    def known(self, name: str, trial: int) -> Array | None:
        """Elements of a tensor that follow from constants and, for open axes, a trial length."""
        if name in self.sizes[trial]:
            return self.sizes[trial][name]
        return self._stored(name) if name in self.constants.stored else None

    def _stored(self, name: str) -> Array | None:
        tensor = self.constants.stored[name]
        numeric = name in self.kinds and 0 < prod(tensor.dims) <= _LARGE
        values = self.model.read(name) if numeric else None
        return values if values is not None and values.dtype.kind in "fViub" else None

    def dtype(self, name: str) -> np.dtype[Any] | None:
        """Numpy's type of a tensor's elements, None if unknown."""
        kind = self.kinds.get(name)
        if kind is None or kind.element == 0:
            return None
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.element))

    def evaluate(self, node: NodeProto, operands: Sequence[Array | None]) -> list[Array] | None:
        """What a node makes of given inputs, None if it cannot be evaluated.

        Args:
            node: without subgraphs.
            operands: per input, None for one that the node leaves out.
        """
        given = {
            name: value
            for name, value in zip(node.input, operands, strict=True)
            if value is not None
        }
        graph = GraphProto(name="node", node=[node])
        graph.input.extend(ValueInfoProto(name=name) for name in given)
        names = [name for name in node.output if name]
        graph.output.extend(ValueInfoProto(name=name) for name in names)
        source = self.model.proto
        proto = ModelProto(ir_version=source.ir_version, graph=graph)
        proto.opset_import.extend(source.opset_import)
        try:
            with np.errstate(all="ignore"):
                return [np.asarray(out) for out in ReferenceEvaluator(proto).run(names, given)]
        except Exception:  # of whatever kind: then nothing is known of its result
            return None

    def learn_sizes(self, node: NodeProto) -> None:
        """Follow what shapes are computed from: Shape of a tensor, and arithmetic on it."""
        if not is_deterministic(node):
            return
        for trial in TRIALS:
            if node.op_type == "Shape" and node.domain in ("", "ai.onnx"):
                shape = self.shape(node.input[0])
                operands = [None if shape is None else _hollow(shape, trial)]
            else:
                operands = [self.known(name, trial) if name else None for name in node.input]
                if sum(0 if value is None else value.size for value in operands) > _TINY:
                    continue
            if all(v is not None for n, v in zip(node.input, operands, strict=True) if n):
                names = [name for name in node.output if name]
                made = self.evaluate(node, operands) or []
                small = {n: v for n, v in zip(names, made, strict=False) if v.size <= _TINY}
                self.sizes[trial].update(small)


def _hollow(shape: Shape, trial: int) -> Array:
    """An array of some shape that takes no memory."""
    return np.broadcast_to(np.float32(0), [size or trial for size in shape])
