"""Gemm and MatMul, the constant on either side."""

from __future__ import annotations

from math import prod

from onnx import NodeProto

from onnx_sipp.graph.node import Constants, LayerParts, NotPrunable, attributes
from onnx_sipp.graph.views import MatrixView
from onnx_sipp.unfolding.base import MatMulUnfolding

__all__ = ["gemm", "matmul"]


def _side(node: NodeProto, constants: Constants) -> int | None:
    """Which operand is the constant: 0, 1, or None if neither."""
    sides = [side for side in (0, 1) if node.input[side] in constants]
    if len(sides) == 2:
        raise NotPrunable("both its operands are constants")
    return sides[0] if sides else None


def gemm(node: NodeProto, constants: Constants) -> LayerParts | None:
    """See ONNX Gemm, ``alpha * A' B' + beta * C`` with ``A'`` and ``B'`` maybe transposed.

    Raises:
        NotPrunable: the weight is computed, or both operands are constants.
    """
    side = _side(node, constants)
    if side is None:
        return None
    found = attributes(node)
    transposed = [bool(found.get("transA", 0)), bool(found.get("transB", 0))]
    dims = tuple(constants.weight(node.input[side]).dims)
    if len(dims) != 2:
        raise NotPrunable(f"its weight has shape {list(dims)}, not two axes", prod(dims))
    # On the right, B' is [fan_in, out]; on the left, A' is [out, fan_in].
    rows_are_outputs = transposed[1] if side == 1 else not transposed[0]
    order = (0, 1) if rows_are_outputs else (1, 0)
    # Patches are the rows of A', or the columns of B'.
    columns = transposed[0] if side == 1 else not transposed[1]
    bias = node.input[2] if side == 1 and len(node.input) > 2 else ""
    return LayerParts(
        weight=node.input[side],
        view=MatrixView(dims, order, (1, dims[order[0]], dims[order[1]])),
        activation=node.input[1 - side],
        unfolding=MatMulUnfolding(columns=columns, neurons_first=side == 0),
        bias=bias if bias in constants.stored else None,
        scale=float(found.get("alpha", 1.0)),
        neuron_axis=-1 if side == 1 else -2,
    )


def matmul(node: NodeProto, constants: Constants) -> LayerParts | None:
    """See ONNX MatMul (numpy.matmul), the constant of any rank on either side.

    Raises:
        NotPrunable: the weight is computed, a scalar, or both operands are constants.
    """
    side = _side(node, constants)
    if side is None:
        return None
    dims = tuple(constants.weight(node.input[side]).dims)
    if not dims:
        raise NotPrunable("its weight is a scalar", 1)
    axes = tuple(range(len(dims)))
    if len(dims) == 1:
        order, matrix = axes, (1, 1, dims[0])
    else:
        order = axes if side == 0 else (*axes[:-2], axes[-1], axes[-2])
        matrix = (prod(dims[:-2]), dims[order[-2]], dims[order[-1]])
    groups = dims[:-2] if matrix[0] > 1 else ()
    return LayerParts(
        weight=node.input[side],
        view=MatrixView(dims, order, matrix),
        activation=node.input[1 - side],
        unfolding=MatMulUnfolding(groups, columns=side == 0, neurons_first=side == 0),
        neuron_axis=None if matrix[0] > 1 or len(dims) == 1 else side - 2,
    )
