"""Operators that onnxruntime fused: plain ones with an activation, a transpose, a factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from onnx_sipp.graph.lowering.activations import activate, refuse_unknown
from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.lowering.plain import folded
from onnx_sipp.graph.lowering.sketch import Sketch
from onnx_sipp.graph.node import attributes

__all__ = ["fused_conv", "fused_gemm", "fused_matmul"]


def fused_conv(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """``activation(Conv(X, W) + B + Z)``.

    Raises:
        NotPrunable: the weight is not made of stored elements, or the activation is not known.
    """
    if not builder.is_constant(node.input[1]):
        return None
    weight, found = builder.value(node.input[1]), attributes(node)
    sketch = Sketch(builder, weight.dtype)
    name, values = found.pop("activation", ""), found.pop("activation_params", ())
    refuse_unknown(name, weight.size)
    y = _plain("Conv", node.input[:3], found, sketch)
    if len(node.input) > 3 and node.input[3]:
        y = sketch.add("Add", y, node.input[3])
    activate(sketch, name, y, values)
    return _ending_in(sketch, node)


def fused_gemm(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """``activation(Gemm(A, B, C))``.

    Raises:
        NotPrunable: the weight is not made of stored elements, or the activation is not known.
    """
    constant = [name for name in node.input[:2] if builder.is_constant(name)]
    if not constant:
        return None
    weight, found = builder.value(constant[0]), attributes(node)
    sketch = Sketch(builder, weight.dtype)
    name = found.pop("activation", "")
    refuse_unknown(name, weight.size)
    given = [found.pop(f"activation_{key}", None) for key in ("alpha", "beta", "gamma")]
    y = _plain("Gemm", node.input, found, sketch)
    activate(sketch, name, y, [value for value in given if value is not None])
    return _ending_in(sketch, node)


def fused_matmul(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """``alpha * A' B'``, both maybe with their last two, or their first and last two axes swapped.

    Raises:
        NotPrunable: the weight is not made of stored elements, each once.
    """
    sides = [side for side in (0, 1) if builder.is_constant(node.input[side])]
    if len(sides) != 1:
        return None
    (side,) = sides
    found = attributes(node)
    flags = [(bool(found.get(f"trans{x}")), bool(found.get(f"transBatch{x}"))) for x in "AB"]
    values = builder.value(node.input[side])
    sketch = Sketch(builder, values.dtype)
    places = np.arange(values.size).reshape(values.shape)
    if flags[side][1]:
        places = np.moveaxis(places, 0, -2)
    if flags[side][0] and places.ndim > 1:
        places = places.swapaxes(-1, -2)
    weight = builder.weight(node.input[side], places)
    inner: int = places.shape[-1 if side == 0 or places.ndim == 1 else -2]
    identity = np.eye(inner, dtype=values.dtype).reshape(*[1] * (places.ndim - 2), inner, inner)
    other = _upright(sketch, node, 1 - side, flags[1 - side], identity)
    y = sketch.add("MatMul", *((weight, other) if side == 0 else (other, weight)))
    if (alpha := float(found.get("alpha", 1.0))) != 1.0:
        y = sketch.add("Mul", y, sketch.number(alpha))
    return _ending_in(sketch, node)


def _upright(
    sketch: Sketch, node: NodeProto, side: int, flags: tuple[bool, bool], identity: NDArray[Any]
) -> str:
    """The activation with its axes in the order that MatMul wants.

    A Transpose names all axes, and the rank is not always known: so the same operator multiplies
    it with the identity, which is exact.
    """
    if not any(flags):
        return node.input[side]
    letter = "AB"[side]
    made = sketch.builder.node("FusedMatMul", ["", ""])
    made.domain = node.domain
    made.input[side] = node.input[side]
    made.input[1 - side] = sketch.constant(identity, identity.dtype)
    chosen = {f"trans{letter}": flags[0], f"transBatch{letter}": flags[1]}
    made.attribute.extend(helper.make_attribute(key, int(on)) for key, on in chosen.items())
    sketch.nodes.append(made)
    return str(made.output[0])


def _plain(op_type: str, inputs: Sequence[str], found: dict[str, Any], sketch: Sketch) -> str:
    """Write down an operator of ONNX's own whose constants may come by a route."""
    made = sketch.builder.node(op_type, list(inputs), **found)
    sketch.nodes.extend(folded(made, sketch.builder) or [made])
    return str(made.output[0])


def _ending_in(sketch: Sketch, node: NodeProto) -> list[NodeProto]:
    """Let the last of the nodes make the output of the node that they stand for."""
    sketch.nodes[-1].output[0] = node.output[0]
    return sketch.nodes
