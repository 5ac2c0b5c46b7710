"""Attention that projects its own input: the projection is a layer, beside the node.

MultiHeadAttention and its kin take projected inputs: their projections are MatMuls of the graph.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto

from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.lowering.quantized import levels_of, real_values
from onnx_sipp.graph.lowering.sketch import Sketch

__all__ = ["attention", "quantized_attention"]


def attention(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """com.microsoft Attention: ``input @ weights + bias`` makes queries, keys and values.

    Raises:
        NotPrunable: the weight is not made of stored elements, each once.
    """
    if not builder.is_constant(node.input[1]):
        return None
    sketch = Sketch(builder)
    y = sketch.add("MatMul", node.input[0], builder.weight(node.input[1]))
    sketch.bias(y, node.input[2] if len(node.input) > 2 else "")
    return [*sketch.nodes, node]


def quantized_attention(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """com.microsoft QAttention: the same, of integers.

    Raises:
        NotPrunable: the weight is not made of stored elements, or its scale is no constant.
    """
    if not builder.is_constant(node.input[1]):
        return None
    names = [*node.input, *[""] * 8]
    sketch = Sketch(builder)
    x = real_values(sketch, names[0], names[3], names[6])
    y = sketch.add("MatMul", x, builder.weight(names[1], **levels_of(builder, names[4], names[7])))
    sketch.bias(y, names[2])
    return [*sketch.nodes, node]
