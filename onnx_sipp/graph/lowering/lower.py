"""Make the lowered model of a model."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.lowering.flatten import flatten
from onnx_sipp.graph.lowering.lowered import Lowered, Plan
from onnx_sipp.graph.lowering.reads import Read, reads_of
from onnx_sipp.graph.lowering.rules import RULES
from onnx_sipp.graph.lowering.spare import with_spare_biases
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import Label

__all__ = ["lower"]


def lower(model: Model, *, spare_biases: bool = False) -> Lowered:
    """Make the lowered model of a model.

    Args:
        model: the original; is not changed, and must not be while the result is in use.
        spare_biases: give layers a bias that could have one but do not (see `spare`).
    """
    flat = flatten(model)
    builder = Builder(flat, RULES)
    for node, label in flat.nodes:
        builder.emit(node, label)
    emitted, spare = builder.nodes, dict[str, str]()
    if spare_biases:
        emitted, spare = with_spare_biases(builder.nodes, builder)
    constant = [builder.makes_constants(node) for node, _ in emitted]
    acting = [item for item, fixed in zip(emitted, constant, strict=True) if not fixed]

    outputs = [value.name for value in model.proto.graph.output]
    known = builder.constants
    constants = {*known.stored, *known.computed, *builder.virtual, *builder.fixed}
    reads = tuple(reads_of(acting, outputs, constants, known.computed))
    needed = _needed(emitted, reads)
    nodes = [
        item
        for item, fixed in zip(emitted, constant, strict=True)
        if not fixed or needed & set(item[0].output)
    ]
    plan = Plan(
        original=model,
        labels=tuple(label for _, label in nodes),
        twins=builder.twins,
        virtual={name: made for name, made in builder.virtual.items() if name in needed},
        refused=builder.refused,
        reads=reads,
        numbering=builder.numbering,
        tracer=builder.tracer,
        spare=spare,
    )
    return Lowered(_assembled(builder, plan, nodes, needed), plan)


def _needed(nodes: list[tuple[NodeProto, Label]], reads: tuple[Read, ...]) -> set[str]:
    """All constants that reads depend on, those on the way included."""
    producer = {name: node for node, _ in nodes for name in node.output}
    found: set[str] = set()
    pending = [read.name for read in reads]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            if name in producer:
                pending.extend(n for n in producer[name].input if n)
    return found


def _assembled(
    builder: Builder, plan: Plan, nodes: list[tuple[NodeProto, Label]], needed: set[str]
) -> ModelProto:
    source = builder.model.proto
    result = ModelProto(ir_version=source.ir_version)
    result.opset_import.extend(source.opset_import)
    result.functions.extend(source.functions)
    graph = result.graph
    graph.name = source.graph.name
    graph.input.extend(source.graph.input)
    graph.output.extend(source.graph.output)
    graph.value_info.extend(source.graph.value_info)
    graph.sparse_initializer.extend(source.graph.sparse_initializer)
    graph.node.extend(node for node, _ in nodes)
    needed = needed | {value.name for value in source.graph.input}
    for name in plan.twins:
        if name in needed:
            graph.initializer.append(builder.constants.stored[name])
            graph.initializer[-1].name = name
    graph.initializer.extend(t for name, t in builder.fixed.items() if name in needed)
    for name, virtual in plan.virtual.items():
        values = virtual.decode(plan.numbering, builder.model.read_site)
        tensor: TensorProto = numpy_helper.from_array(values, name)
        graph.initializer.append(tensor)
    return result
