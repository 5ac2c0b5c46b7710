"""Dropout in training mode: it draws random numbers, which calibration must not see."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto, TensorProto, helper

from onnx_sipp.graph.lowering.builder import Builder

__all__ = ["dropout"]


def dropout(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """Put what it is on average in its place: the identity."""
    if len(node.input) < 3 or not builder.is_constant(node.input[2]):
        return None
    if not builder.value(node.input[2]).item():
        return None
    builder.note(
        f"{builder.label.name!r} is a Dropout in training mode: calibration takes it for none, and "
        "the fidelity of outputs behind it varies from run to run; export the model for inference"
    )
    nodes = [builder.node("Identity", [node.input[0]], [node.output[0]])]
    if len(node.output) > 1 and node.output[1]:
        shape = builder.node("Shape", [node.input[0]])
        value = helper.make_tensor("", TensorProto.BOOL, [1], [True])
        made = [node.output[1]]
        nodes += [shape, builder.node("ConstantOfShape", shape.output, made, value=value)]
    return nodes
