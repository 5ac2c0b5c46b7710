"""Which rule lowers which operator."""

from __future__ import annotations

from collections.abc import Mapping

from onnx_sipp.graph.lowering.attention import attention, quantized_attention
from onnx_sipp.graph.lowering.builder import Rule
from onnx_sipp.graph.lowering.control import branching, looping, scanning
from onnx_sipp.graph.lowering.dropout import dropout
from onnx_sipp.graph.lowering.einsum import einsum
from onnx_sipp.graph.lowering.fused import fused_conv, fused_gemm, fused_matmul
from onnx_sipp.graph.lowering.plain import folded
from onnx_sipp.graph.lowering.quantized import (
    conv_integer,
    dynamic_quantize_matmul,
    matmul_integer,
    matmul_integer_to_float,
    qgemm,
    qlinear_conv,
    qlinear_matmul,
)
from onnx_sipp.graph.lowering.rnn import dynamic_quantize_lstm, recurrent

__all__ = ["RULES"]

RULES: Mapping[tuple[str, str], Rule] = {
    ("", "Add"): folded,
    ("", "BatchNormalization"): folded,
    ("", "Conv"): folded,
    ("", "ConvInteger"): conv_integer,
    ("", "ConvTranspose"): folded,
    ("", "Dropout"): dropout,
    ("", "Einsum"): einsum,
    ("", "GRU"): recurrent,
    ("", "Gemm"): folded,
    ("", "If"): branching,
    ("", "LSTM"): recurrent,
    ("", "Loop"): looping,
    ("", "MatMul"): folded,
    ("", "MatMulInteger"): matmul_integer,
    ("", "QLinearConv"): qlinear_conv,
    ("", "QLinearMatMul"): qlinear_matmul,
    ("", "RNN"): recurrent,
    ("", "Scan"): scanning,
    ("com.microsoft", "Attention"): attention,
    ("com.microsoft", "DynamicQuantizeLSTM"): dynamic_quantize_lstm,
    ("com.microsoft", "DynamicQuantizeMatMul"): dynamic_quantize_matmul,
    ("com.microsoft", "FusedConv"): fused_conv,
    ("com.microsoft", "FusedGemm"): fused_gemm,
    ("com.microsoft", "FusedMatMul"): fused_matmul,
    ("com.microsoft", "MatMulIntegerToFloat"): matmul_integer_to_float,
    ("com.microsoft", "QAttention"): quantized_attention,
    ("com.microsoft", "QGemm"): qgemm,
    ("com.microsoft", "QLinearConv"): qlinear_conv,
}
