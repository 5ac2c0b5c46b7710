"""If, Loop and Scan: copies that hand out what the layers in their bodies multiply.

The node itself stays and computes the outputs of the model. A copy of it, the *tap*, stands before
it; its outputs are the activations of the layers inside, and behind it stand these layers, plain
ones of the main graph. In a run stage by stage the tap comes first, then the layers' weights are
decided, and then the node itself runs with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.lowering.taps import Tap, find_taps, lowered_body
from onnx_sipp.graph.node import NotPrunable, attributes
from onnx_sipp.graph.order import only_needed, subgraphs

__all__ = ["branching", "looping", "scanning"]


def branching(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """Tap an If: the branch that is not taken hands out empty tensors."""
    if builder.watching == "not":
        _give_up(node, builder)
        return None
    path = builder.label.reader
    bodies = {
        name: lowered_body(graph.node, f"{path} > {name} > ", builder)
        for name, graph in subgraphs(node)
    }
    taps = {name: find_taps(body, builder) for name, body in bodies.items()}
    if not any(taps.values()):
        return None
    tap = helper.make_node("If", [node.input[0]], [])
    outside: list[NodeProto] = []
    for own, found in taps.items():
        for one in found:
            handed = builder.fresh(f"{one.label.name}/activation")
            tap.output.append(handed)
            outside.append(builder.labelled(one.layer(handed), one.label))
        branch = GraphProto(name=own)
        inner = [made for made, _ in bodies[own]]
        for name, others in taps.items():
            for one in others:
                if name == own:
                    inner.extend(one.inner)
                    branch.output.append(_handed_out(one, one.name))
                else:
                    inner.append(_empty(one, builder))
                    branch.output.append(_handed_out(one, inner[-1].output[0]))
        branch.node.extend(only_needed(inner, [value.name for value in branch.output]))
        tap.attribute.add(name=own, type=AttributeProto.GRAPH).g.CopyFrom(branch)
    return [builder.tap(tap), *outside, node]


def looping(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """Tap a Loop: its iterations hand out activations as scan outputs."""
    if builder.watching == "not":
        _give_up(node, builder)
        return None
    return _iterated(node, builder, states=len(node.input) - 2, first=1, axes=1)


def scanning(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """Tap a Scan, that of opset 8 too, where batch and sequence are axes of its own.

    Raises:
        NotPrunable: such a one is told the length of each sequence, so that it pads.
    """
    if builder.watching == "not":
        _give_up(node, builder)
        return None
    inputs = int(attributes(node)["num_scan_inputs"])
    if builder.opset >= 9:
        return _iterated(node, builder, states=len(node.input) - inputs, first=0, axes=1)
    if node.input[0]:
        raise NotPrunable("what it hands out is padded to the longest sequence")
    return _iterated(node, builder, states=len(node.input) - 1 - inputs, first=0, axes=2)


def _give_up(node: NodeProto, builder: Builder) -> None:
    """List the layers inside as some that no sample reaches."""
    path = builder.label.reader
    for name, graph in subgraphs(node):
        builder.give_up(graph.node, f"{path} > {name} > ")


def _iterated(
    node: NodeProto, builder: Builder, *, states: int, first: int, axes: int
) -> Sequence[NodeProto] | None:
    """Tap a node that runs its body again and again.

    Args:
        node: Loop or Scan.
        builder: of the lowered graph.
        states: how many states it carries on.
        first: place of the first of them among the outputs of the body.
        axes: how many axes a scan output has before those that it has inside.
    """
    ((name, graph),) = subgraphs(node)
    body = lowered_body(graph.node, f"{builder.label.reader} > {name} > ", builder)
    taps = find_taps(body, builder)
    if not taps:
        return None
    collects = node.op_type == "Loop" and builder.watching == "collected"
    joined = [one for one in taps if collects and one.rank == 2]
    stacked = [one for one in taps if one not in joined]
    copied = GraphProto(name=graph.name)
    copied.input.extend(graph.input)
    copied.output.extend(graph.output[: first + states])
    inner = [made for made, _ in body] + [made for one in taps for made in one.inner]
    tap = NodeProto(op_type=node.op_type, domain=node.domain, input=node.input)
    tap.output.extend(builder.fresh(f"{builder.label.name}/state") for _ in range(states))
    outside: list[NodeProto] = []
    for one in joined:
        inner.append(_join(one, tap, copied, builder))
        outside.append(builder.labelled(one.layer(tap.output[-1]), one.label))
    for one in stacked:
        copied.output.append(_handed_out(one, one.name))
        tap.output.append(builder.fresh(f"{one.label.name}/activation"))
        merged = _merged(one, tap.output[-1], axes, builder)
        outside.extend(merged)
        handed = merged[-1].output[0] if merged else tap.output[-1]
        outside.append(builder.labelled(one.layer(handed), one.label))
    copied.node.extend(only_needed(inner, [value.name for value in copied.output]))
    for attribute in node.attribute:
        if attribute.name == name:
            tap.attribute.add(name=name, type=AttributeProto.GRAPH).g.CopyFrom(copied)
        elif not attribute.name.startswith("scan_output"):
            tap.attribute.append(attribute)
    return [builder.tap(tap), *outside, node]


def _join(one: Tap, tap: NodeProto, body: GraphProto, builder: Builder) -> NodeProto:
    """Let a Loop collect rows in a state, so that iterations may differ in how many they have.

    Returns:
        The node inside that adds the rows of an iteration.
    """
    dtype = helper.tensor_dtype_to_np_dtype(one.elem_type)
    tap.input.append(builder.constant(np.zeros(one.shape, dtype), "empty"))
    tap.output.append(builder.fresh(f"{one.label.name}/activation"))
    before = builder.fresh(f"{one.label.name}/before")
    joined = builder.node("Concat", [before, one.name], axis=0)
    body.input.append(_handed_out(one, before))
    body.output.append(_handed_out(one, joined.output[0]))
    return joined


def _merged(one: Tap, stacked: str, axes: int, builder: Builder) -> list[NodeProto]:
    """Nodes that merge the axes of the iterations with the first axis inside."""
    if one.rank is None:
        return []  # a product takes any number of axes before its own
    known = builder.constant(np.array([-1, one.shape[1]], np.int64), "batch")
    if one.rank == 2:
        return [builder.node("Reshape", [stacked, known])]
    # The spatial sizes are not known. Without any iteration they are 0, where a kernel needs room.
    nodes = [builder.node("Shape", [stacked])]
    places = builder.constant(np.arange(axes + 2, axes + one.rank, dtype=np.int64), "places")
    nodes.append(builder.node("Gather", [nodes[-1].output[0], places]))
    zero = builder.constant(np.zeros(1, np.int64), "zero")
    nodes.append(builder.node("Equal", [nodes[-1].output[0], zero]))
    nodes.append(builder.node("Cast", [nodes[-1].output[0]], to=TensorProto.INT64))
    reach = builder.constant(np.array(one.shape[2:], np.int64), "reach")
    nodes.append(builder.node("Mul", [nodes[-1].output[0], reach]))
    nodes.append(builder.node("Add", [nodes[1].output[0], nodes[-1].output[0]]))
    nodes.append(builder.node("Concat", [known, nodes[-1].output[0]], axis=0))
    nodes.append(builder.node("Reshape", [stacked, nodes[-1].output[0]]))
    return nodes


def _handed_out(one: Tap, name: str) -> ValueInfoProto:
    """The declaration of a tap as an output of a body."""
    shape = None if one.rank is None else [None, one.shape[1], *[None] * (one.rank - 2)]
    return helper.make_tensor_value_info(name, one.elem_type, shape)


def _empty(one: Tap, builder: Builder) -> NodeProto:
    dtype = helper.tensor_dtype_to_np_dtype(one.elem_type)
    return builder.node("Identity", [builder.constant(np.zeros(one.shape, dtype), "empty")])
