"""Run a product with a large constant some columns at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto

from onnx_sipp.calibration.session import open_session, run_session
from onnx_sipp.graph.handing_over import mapped
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import attributes
from onnx_sipp.slabs import ranges
from onnx_sipp.store import Kept, LiveTensors, TensorStore, load

__all__ = ["WideProduct"]

Tensor = NDArray[Any]


@dataclass(frozen=True)
class WideProduct:
    """A MatMul or Gemm whose output columns each need some columns of its constant.

    Attributes:
        node: itself.
        weight: name of the constant on the right.
        axis: of the constant that the columns of the output lie along.
        bias: name of the constant that is added to the columns, "" if there is none.
    """

    node: NodeProto
    weight: str
    axis: int
    bias: str

    @classmethod
    def of(cls, model: Model, node: NodeProto) -> WideProduct | None:
        """See a node as such a product, None if it is none."""
        if node.domain not in ("", "ai.onnx") or node.op_type not in ("MatMul", "Gemm"):
            return None
        weight, bias = node.input[1], node.input[2] if len(node.input) > 2 else ""
        fixed = {name for name in (weight, bias) if name in model.stored}
        if weight not in fixed or node.input[0] in model.stored or (bias and bias not in fixed):
            return None
        if len(model.stored[weight].dims) != 2 or mapped(model.sites, weight) is None:
            return None
        transposed = node.op_type == "Gemm" and attributes(node).get("transB", 0)
        return cls(node, weight, 0 if transposed else 1, bias)

    def run(
        self,
        model: Model,
        lives: Sequence[LiveTensors],
        store: TensorStore,
        limit: int,
        *,
        threads: int | None,
        providers: Sequence[str] | None,
    ) -> None:
        """Add its output to the tensors of every batch.

        Args:
            model: that the constants are read from.
            lives: batches, with its input.
            store: holds parts of the output.
            limit: bytes of the constant in memory at a time.
            threads: of onnxruntime.
            providers: of onnxruntime.

        Raises:
            SippError: the runtime fails.
        """
        outs = model.stored[self.weight].dims[self.axis]
        bias = model.read(self.bias) if self.bias else None
        session: Any = None
        parts: list[list[Kept]] = [[] for _ in lives]
        for columns in ranges(outs, model.constant_bytes(self.weight) // outs, limit):
            own = {self.weight: model.read_slab(self.weight, self.axis, columns)}
            if bias is not None:
                alike = bias.ndim > 0 and bias.shape[-1] == outs
                own[self.bias] = np.ascontiguousarray(bias[..., columns] if alike else bias)
            for live, done in zip(lives, parts, strict=True):
                feed = {self.node.input[0]: live[self.node.input[0]]}
                if session is None:
                    proto = self._model(model, {**feed, **own})
                    session = open_session(proto, folder=None, threads=threads, providers=providers)
                done.extend(map(store.keep, run_session(session, self.node.output, feed, own)))
        for live, done in zip(lives, parts, strict=True):
            live.add(self.node.output[0], np.concatenate([load(part) for part in done], axis=-1))
            for part in done:
                store.drop(part)

    def _model(self, model: Model, inputs: dict[str, Tensor]) -> bytes:
        graph = GraphProto(name="product", node=[self.node])
        for name, value in inputs.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, None))
        graph.output.add(name=self.node.output[0])
        result = ModelProto(ir_version=model.proto.ir_version, graph=graph)
        result.opset_import.extend(model.proto.opset_import)
        return bytes(result.SerializeToString())
