"""Which rule lowers which operator."""

from __future__ import annotations

from collections.abc import Mapping

from onnx_sipp.graph.lowering.builder import Rule
from onnx_sipp.graph.lowering.plain import folded

__all__ = ["RULES"]

RULES: Mapping[tuple[str, str], Rule] = {
    ("", "Add"): folded,
    ("", "BatchNormalization"): folded,
    ("", "Conv"): folded,
    ("", "Gemm"): folded,
    ("", "MatMul"): folded,
}
