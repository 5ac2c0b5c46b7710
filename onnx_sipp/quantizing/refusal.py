"""Which models cannot be quantised."""

from __future__ import annotations

from onnx_sipp.errors import UsageError
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.walk import all_nodes

__all__ = ["refuse_quantization"]

_INTEGER_OPS = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
    "ConvInteger", "MatMulInteger", "QAttention", "DynamicQuantizeMatMul", "MatMulNBits",
}  # fmt: skip


def refuse_quantization(model: Model) -> None:
    """Check, before any work is done, that a model can be quantised.

    Raises:
        UsageError: it is quantised already, or needs operators of a library.
    """
    if model.libraries:
        raise UsageError(
            "onnxruntime's quantiser cannot load libraries of operators, so a model that needs "
            "--custom-ops cannot be quantised here; leave --quantize out"
        )
    found = sorted({node.op_type for node in all_nodes(model.proto)} & _INTEGER_OPS)
    if found:
        raise UsageError(
            f"the model is quantised already (it has {', '.join(found)}); leave --quantize out: "
            "its weights are pruned as they are"
        )
