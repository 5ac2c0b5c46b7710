"""Operators that multiply integers: a plain layer of the real values stands beside each.

The activation is dequantised for it; a weight is refitted in real values, and requantised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.lowering.sketch import Sketch
from onnx_sipp.graph.node import NotPrunable, attributes

__all__ = [
    "conv_integer",
    "dynamic_quantize_matmul",
    "levels_of",
    "matmul_integer",
    "matmul_integer_to_float",
    "qgemm",
    "qlinear_conv",
    "qlinear_matmul",
    "real_values",
]


def real_values(sketch: Sketch, levels: str, scale: str, zero_point: str) -> str:
    """Write down ``(levels - zero_point) * scale``.

    Args:
        sketch: takes the nodes.
        levels: an activation of integers.
        scale: name of a scale, ``""`` for 1.
        zero_point: name of a zero point, ``""`` for 0.
    """
    x = sketch.cast(levels)
    if zero_point:
        x = sketch.add("Sub", x, sketch.cast(zero_point))
    return sketch.add("Mul", x, sketch.cast(scale)) if scale else x


def levels_of(builder: Builder, scale: str, zero_point: str, axis: int = 1) -> dict[str, Any]:
    """How a weight's integers stand for real values, for `Builder.weight`.

    Args:
        builder: of the lowered graph.
        scale: name of a scale, ``""`` for 1.
        zero_point: name of a zero point, ``""`` for 0.
        axis: of the weight, that several of them belong to.

    Raises:
        NotPrunable: one of them is no constant.
    """
    for name in (scale, zero_point):
        if name and not builder.is_constant(name):
            raise NotPrunable(f"its quantisation parameter {name!r} is no constant")
    factor = builder.value(scale).astype(np.float32) if scale else np.ones((), np.float32)
    zero = builder.value(zero_point) if zero_point else np.zeros((), np.int32)
    return {"scale": factor, "zero_point": zero, "axis": axis}


def conv_integer(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """ConvInteger: ``x, w, x_zero_point, w_zero_point``.

    Raises:
        NotPrunable: the weight is not made of stored elements, or its zero point is no constant.
    """
    x, w, x_zero, w_zero = _named(node, 4)
    if not builder.is_constant(w):
        return None
    sketch = Sketch(builder)
    weight = builder.weight(w, **levels_of(builder, "", w_zero, axis=0))
    sketch.add("Conv", _dynamic(sketch, x, x_zero), weight, **attributes(node))
    return [*sketch.nodes, node]


def qlinear_conv(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """QLinearConv: ``x, scale, zero_point, w, scale, zero_point, y_scale, y_zero_point, B``.

    Raises:
        NotPrunable: the weight is not made of stored elements, its quantisation parameters are no
            constants, or it lies channels last.
    """
    x, x_scale, x_zero, w, w_scale, w_zero, _, _, b = _named(node, 9)
    if not builder.is_constant(w):
        return None
    found = attributes(node)
    if found.pop("channels_last", 0):
        raise NotPrunable("channels that come last are not supported", builder.value(w).size)
    sketch = Sketch(builder)
    levels = levels_of(builder, w_scale, w_zero, axis=0)
    weight = builder.weight(w, **levels)
    bias = _integer_bias(builder, b, x_scale, levels["scale"])
    sketch.add("Conv", real_values(sketch, x, x_scale, x_zero), weight, *bias, **found)
    return [*sketch.nodes, node]


def qgemm(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """com.microsoft QGemm: ``a, scale, zero_point, b, scale, zero_point, C, …``.

    Raises:
        NotPrunable: the weight is not made of stored elements, or its quantisation parameters are
            no constants.
    """
    a, a_scale, a_zero, b, b_scale, b_zero, c = _named(node, 7)
    if not builder.is_constant(b):
        return None
    found = attributes(node)
    transposed, alpha = int(found.get("transB", 0)), float(found.get("alpha", 1.0))
    sketch = Sketch(builder)
    levels = levels_of(builder, b_scale, b_zero, axis=0 if transposed else 1)
    weight = builder.weight(b, **levels)
    bias = _integer_bias(builder, c, a_scale, alpha * levels["scale"])
    sketch.add("Gemm", real_values(sketch, a, a_scale, a_zero), weight, *bias, **found)
    return [*sketch.nodes, node]


def matmul_integer(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """MatMulInteger: ``A, B, a_zero_point, b_zero_point``.

    Raises:
        NotPrunable: the weight is not made of stored elements, or its zero point is no constant.
    """
    a, b, a_zero, b_zero = _named(node, 4)
    return _product(node, builder, (a, "", a_zero), (b, "", b_zero))


def qlinear_matmul(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """QLinearMatMul: ``a, scale, zero_point, b, scale, zero_point, y_scale, y_zero_point``.

    Raises:
        NotPrunable: the weight is not made of stored elements, or its quantisation parameters are
            no constants.
    """
    a, a_scale, a_zero, b, b_scale, b_zero = _named(node, 6)
    return _product(node, builder, (a, a_scale, a_zero), (b, b_scale, b_zero))


def matmul_integer_to_float(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """com.microsoft MatMulIntegerToFloat: ``A, B, scales, zero points, bias``.

    Raises:
        NotPrunable: the weight is not made of stored elements, or its quantisation parameters are
            no constants.
    """
    a, b, a_scale, b_scale, a_zero, b_zero, bias = _named(node, 7)
    return _product(node, builder, (a, a_scale, a_zero), (b, b_scale, b_zero), bias)


def dynamic_quantize_matmul(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """com.microsoft DynamicQuantizeMatMul: ``A, B, b_scale, b_zero_point, bias``; A is real.

    Raises:
        NotPrunable: the weight is not made of stored elements, or its quantisation parameters are
            no constants.
    """
    a, b, b_scale, b_zero, bias = _named(node, 5)
    if not builder.is_constant(b):
        return None
    sketch = Sketch(builder)
    axis = builder.value(b).ndim - 1
    weight = builder.weight(b, **levels_of(builder, b_scale, b_zero, axis))
    sketch.bias(sketch.add("MatMul", a, weight), bias)
    return [*sketch.nodes, node]


Operand = tuple[str, str, str]


def _product(
    node: NodeProto, builder: Builder, left: Operand, right: Operand, bias: str = ""
) -> list[NodeProto] | None:
    """A MatMul of operands given as levels, scale and zero point, one of them constant."""
    constant = [builder.is_constant(levels) for levels, _, _ in (left, right)]
    if sum(constant) != 1:
        return None
    sketch, operands = Sketch(builder), []
    for (levels, scale, zero_point), is_weight in zip((left, right), constant, strict=True):
        if is_weight:
            # Several parameters belong to the rows of the left operand, to columns of the right.
            axis = builder.value(levels).ndim - (2 if levels == left[0] else 1)
            how = levels_of(builder, scale, zero_point, axis)
            operands.append(builder.weight(levels, **how))
        elif scale:
            operands.append(real_values(sketch, levels, scale, zero_point))
        else:
            operands.append(_dynamic(sketch, levels, zero_point))
    sketch.bias(sketch.add("MatMul", *operands), bias)
    return [*sketch.nodes, node]


def _dynamic(sketch: Sketch, levels: str, zero_point: str) -> str:
    """Real values of an operand whose scale the node does not know.

    If DynamicQuantizeLinear made them, it knows; else they are counted in levels, which changes
    nothing as long as the scale is the same for all samples.
    """
    maker = sketch.builder.producer(levels)
    known = maker is not None and maker.op_type == "DynamicQuantizeLinear"
    scale = maker.output[1] if maker is not None and known else ""
    return real_values(sketch, levels, scale, zero_point)


def _integer_bias(builder: Builder, name: str, x_scale: str, factor: Any) -> list[str]:
    """An int32 bias, counted in levels of the product, in real values; none if it may not move."""
    if not name or not builder.is_constant(name):
        return []
    if not builder.is_constant(x_scale):
        return []
    scale = (builder.value(x_scale).astype(np.float32) * factor).astype(np.float32)
    try:
        return [builder.weight(name, scale=scale, axis=0)]
    except NotPrunable:
        return []


def _named(node: NodeProto, count: int) -> list[str]:
    """Inputs of a node, those that it lacks as ``""``."""
    return [*node.input, *[""] * count][:count]
