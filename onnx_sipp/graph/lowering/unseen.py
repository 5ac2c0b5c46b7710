"""Layers that no sample reaches: plain layers of the main graph, whose activation is empty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto

from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.lowering.taps import find_taps
from onnx_sipp.graph.node import Label

__all__ = ["emit_unseen"]


def emit_unseen(nodes: Sequence[tuple[NodeProto, Label]], builder: Builder) -> frozenset[str]:
    """Emit the layers among nodes that are never run.

    Their activations are computed from an input of the model, so that they do not pass for
    constants.

    Args:
        nodes: of the flat graph.
        builder: of the lowered graph.

    Returns:
        The names of the activations.
    """
    lowered = [item for node, label in nodes for item in builder.lower(node, label)]
    taps = find_taps(lowered, builder)
    inputs = [value.name for value in builder.model.proto.graph.input]
    source = next((name for name in inputs if not builder.is_constant(name)), None)
    if not taps or source is None:
        return frozenset()
    nothing = _nothing(source, builder)
    own = Label("", "")
    builder.nodes.extend((node, own) for node in nothing)
    made = set()
    for tap in taps:
        sizes = np.array([size or -1 for size in tap.shape], np.int64)
        cast = builder.node("Cast", [nothing[-1].output[0]], to=tap.elem_type)
        shape = builder.constant(sizes, "sizes")
        empty = builder.node("Reshape", [cast.output[0], shape])
        layer = tap.layer(empty.output[0])
        builder.nodes.extend([(cast, own), (empty, own), (layer, tap.label)])
        made.add(empty.output[0])
    return frozenset(made)


def _nothing(source: str, builder: Builder) -> list[NodeProto]:
    """Nodes that make an integer tensor without elements of any tensor."""
    shape = builder.node("Shape", [source])
    if builder.opset < 10:
        return [shape, builder.node("Slice", [shape.output[0]], axes=[0], starts=[0], ends=[0])]
    zero = builder.constant(np.zeros(1, np.int64), "zero")
    return [shape, builder.node("Slice", [shape.output[0], zero, zero])]
