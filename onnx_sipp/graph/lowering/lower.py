"""Make the lowered model of a model."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from onnx_sipp.graph.lowering.builder import Builder, Rule, Watching
from onnx_sipp.graph.lowering.flat import Flat
from onnx_sipp.graph.lowering.flatten import flatten
from onnx_sipp.graph.lowering.lowered import Lowered
from onnx_sipp.graph.lowering.plan import Plan
from onnx_sipp.graph.lowering.reads import Read, reads_of
from onnx_sipp.graph.lowering.rules import RULES
from onnx_sipp.graph.lowering.spare import with_spare_biases
from onnx_sipp.graph.lowering.unseen import emit_unseen
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import Label, NotPrunable
from onnx_sipp.graph.order import reads as names_read

__all__ = ["lower"]


def lower(
    model: Model,
    branches: Mapping[str, bool] | None = None,
    watched: Mapping[str, Watching] | None = None,
    rules: Mapping[tuple[str, str], Rule] = RULES,
    *,
    spare_biases: bool = False,
) -> Lowered:
    """Make the lowered model of a model.

    Args:
        model: the original; is not changed, and must not be while the result is in use.
        branches: what the conditions of Ifs always are on the data, by label (see
            `Plan.conditions`); the other branches are never taken.
        watched: how the layers inside nodes of the main graph are to be watched, by label.
        rules: by domain and operator; without any, only functions and known branches dissolve.
        spare_biases: give layers a bias that could have one but do not (see `spare`).
    """
    flat, builder = _decided(model, branches or {}, watched or {}, rules)
    for node, label in flat.nodes:
        builder.nodes.extend(builder.lower(node, label))
    unseen = emit_unseen(flat.unseen, builder)
    unwatched = emit_unseen(builder.given_up, builder)
    emitted, spare = builder.nodes, dict[str, str]()
    if spare_biases:
        emitted, spare = with_spare_biases(builder.nodes, builder)
    nodes, reads, needed = _kept(flat, builder, emitted)
    known = builder.constants
    plan = Plan(
        original=model,
        labels=tuple(label for _, label in nodes),
        twins=known.twins,
        virtual={name: made for name, made in known.virtual.items() if name in needed},
        refused=builder.refused,
        reads=reads,
        numbering=known.numbering,
        tracer=known.tracer,
        taps=frozenset(index for index, (n, _) in enumerate(nodes) if builder.is_tap(n)),
        conditions=_conditions(flat),
        unseen=unseen | unwatched,
        unwatched=unwatched,
        left_out=tuple(flat.unseen),
        notes=tuple(dict.fromkeys(builder.notes)),
        spare=spare,
    )
    return Lowered(_assembled(builder, plan, nodes, needed), plan)


def _kept(
    flat: Flat, builder: Builder, emitted: list[tuple[NodeProto, Label]]
) -> tuple[list[tuple[NodeProto, Label]], tuple[Read, ...], set[str]]:
    """Leave out nodes that make constants nobody needs.

    Returns:
        The nodes that stay, what is read by those that compute, and the constants that are needed.
    """
    known = builder.constants
    constant = [known.makes(node) for node, _ in emitted]
    acting = [
        (node, label)
        for (node, label), fixed in zip(emitted, constant, strict=True)
        if not fixed and not builder.is_tap(node)
    ]
    outputs = [value.name for value in flat.model.proto.graph.output]
    constants = {*known.flat.stored, *known.flat.computed, *known.virtual, *known.fixed}
    reads = tuple(reads_of([*acting, *flat.unseen], outputs, constants, known.flat.computed))
    tapped = [name for n, _ in emitted if builder.is_tap(n) for name in names_read(n)]
    needed = _needed(emitted, [*(r.name for r in reads), *constants.intersection(tapped)])
    nodes = [
        item
        for item, fixed in zip(emitted, constant, strict=True)
        if not fixed or needed & set(item[0].output)
    ]
    return nodes, reads, needed


def _decided(
    model: Model,
    branches: Mapping[str, bool],
    watched: Mapping[str, Watching],
    rules: Mapping[tuple[str, str], Rule],
) -> tuple[Flat, Builder]:
    """Flatten a model; Ifs whose condition is a constant are decided, one in the other, too."""
    branches = dict(branches)
    while True:
        flat = flatten(model, branches)
        builder = Builder(flat, rules, watched)
        fixed: dict[str, bool] = {}
        for label, name in flat.conditions.items():
            if builder.is_constant(name):
                try:
                    fixed[label] = bool(builder.value(name).item())
                except NotPrunable:
                    continue  # it will be observed, as any other
        if not fixed:
            return flat, builder
        branches |= fixed


def _conditions(flat: Flat) -> dict[str, str]:
    """The conditions that are tensors of the main graph, by label of the If."""
    made = {name for node, _ in flat.nodes for name in node.output}
    made |= {value.name for value in flat.model.proto.graph.input}
    return {label: name for label, name in flat.conditions.items() if name in made}


def _needed(nodes: list[tuple[NodeProto, Label]], names: list[str]) -> set[str]:
    """These constants, and all that they depend on."""
    producer = {name: node for node, _ in nodes for name in node.output}
    found: set[str] = set()
    pending = list(names)
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
    result.opset_import.extend(builder.opsets)
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
            graph.initializer.append(builder.constants.flat.stored[name])
            graph.initializer[-1].name = name
    graph.initializer.extend(t for name, t in builder.constants.fixed.items() if name in needed)
    for name, virtual in plan.virtual.items():
        values = virtual.decode(plan.numbering, builder.model.sites.read)
        tensor: TensorProto = numpy_helper.from_array(values, name)
        graph.initializer.append(tensor)
    return result
