"""Layers whose constants come by a route, and what may follow them as their bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import NodeProto

from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.node import NotPrunable

__all__ = ["folded"]

_WEIGHTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
}
_OTHERS: Mapping[str, tuple[int, ...]] = {
    "Add": (0, 1),
    "BatchNormalization": (1, 2, 3, 4),
    "Conv": (2,),
    "ConvTranspose": (2,),
    "Gemm": (2,),
}


def folded(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """Put stored constants in the place of those that come by a route.

    Raises:
        NotPrunable: the weight is not made of stored elements.
    """
    result = NodeProto()
    result.CopyFrom(node)
    for place in _by_route(node, _WEIGHTS, builder):
        result.input[place] = builder.weight(node.input[place])
    for place in _by_route(node, _OTHERS, builder):
        try:
            result.input[place] = builder.weight(node.input[place])
        except NotPrunable:
            continue  # no change of a bias can be written to it, and none will be
    return [result] if result.input != node.input else None


def _by_route(
    node: NodeProto, places: Mapping[str, tuple[int, ...]], builder: Builder
) -> list[int]:
    chosen = places.get(node.op_type, ())
    names = {place: node.input[place] for place in chosen if place < len(node.input)}
    constant = [place for place, name in names.items() if name and builder.is_constant(name)]
    if len(constant) == len(names) > 1 and node.op_type in ("Gemm", "MatMul"):
        return []  # no activation: `kinds` says so
    return [place for place in constant if names[place] not in builder.constants.twins]
