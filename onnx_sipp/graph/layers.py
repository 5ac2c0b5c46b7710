"""The prunable layers of a model, and what else multiplies a constant, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from math import prod

from onnx_sipp.errors import UsageError
from onnx_sipp.graph.kinds import (
    Layer,
    Skipped,
    as_layer,
    known_operators,
    node_kind,
)
from onnx_sipp.graph.lowering.lowered import Lowered
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.nested import functions_called, in_functions, in_subgraphs
from onnx_sipp.graph.node import Constants, NotPrunable
from onnx_sipp.graph.sharing import other_readers, partial_overlaps
from onnx_sipp.graph.tensors import FLOAT_TYPES
from onnx_sipp.graph.walk import all_tensors

__all__ = ["Findings", "Layer", "Skipped", "find_layers"]


@dataclass(frozen=True)
class Findings:
    """What `find_layers` saw.

    Attributes:
        layers: prunable layers, in graph order.
        skipped: nodes that multiply a constant and are not prunable, in graph order.
        prunable: elements of all prunable weights, shared ones once.
        parameters: elements of all floating-point constants of the model.
    """

    layers: tuple[Layer, ...]
    skipped: tuple[Skipped, ...]
    prunable: int
    parameters: int


def find_layers(
    model: Lowered, exclude_nodes: Sequence[str] = (), exclude_op_types: Sequence[str] = ()
) -> Findings:
    """List the prunable layers of a model, and the nodes left alone with the reason.

    Args:
        model: is not changed.
        exclude_nodes: names of nodes to leave alone, or globs over them.
        exclude_op_types: operator types to leave alone, or globs over them.

    Raises:
        UsageError: there is no such node or operator.
        SippError: the graph is damaged beyond reading.
    """
    proto, labels = model.proto, model.plan.labels
    constants = Constants.of(proto.graph, model.stored)
    candidates: list[Layer] = []
    skipped = [(len(labels), skip) for skip in in_functions(proto, constants)]
    for index, (node, label) in enumerate(zip(proto.graph.node, labels, strict=True)):
        if label.name in model.plan.refused:
            skipped.append((index, model.plan.refused[label.name]))
        elif node_kind(node) not in functions_called(proto):
            try:
                layer = as_layer(node, label, index, constants)
            except NotPrunable as found:
                reason = Skipped(label.name, label.op_type, found.parameters, str(found))
                skipped.append((index, reason))
            else:
                if layer is not None and model.is_written_through(layer.weight):
                    candidates.append(layer)
        skipped.extend((index, skip) for skip in in_subgraphs(node, label.name, constants))
    names = [name for label in labels for name in (label.name, label.reader)]
    names = list(dict.fromkeys([*names, *(skip.name for _, skip in skipped)]))
    _refuse_idle(exclude_nodes, names, "node is called")
    operators = known_operators().union(label.op_type for label in labels)
    _refuse_idle(exclude_op_types, sorted(operators), "operator is called")
    excluded = [
        _matches(layer.name, exclude_nodes)
        or _matches(labels[layer.index].reader, exclude_nodes)
        or _matches(layer.op_type, exclude_op_types)
        for layer in candidates
    ]
    wanted = [layer for layer, out in zip(candidates, excluded, strict=True) if not out]
    skipped.extend(
        (layer.index, _left_alone(layer, "excluded by the user"))
        for layer, out in zip(candidates, excluded, strict=True)
        if out
    )
    layers, shared = _without_conflicts(model, wanted)
    skipped.extend(shared)
    skipped.sort(key=lambda item: item[0])
    return Findings(
        layers=tuple(layers),
        skipped=tuple(skip for _, skip in skipped),
        prunable=_distinct_elements(model, layers),
        parameters=_parameters(model.plan.original),
    )


def _matches(name: str, globs: Iterable[str]) -> bool:
    """Whether a name is one of these or matches one; names themselves may hold ``[0]``."""
    return any(name == glob or fnmatchcase(name, glob) for glob in globs)


def _refuse_idle(globs: Sequence[str], names: Sequence[str], what: str) -> None:
    for glob in globs:
        if not any(_matches(name, [glob]) for name in names):
            close = get_close_matches(glob, names, 3)
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise UsageError(f"no {what} {glob!r}{hint}")


def _left_alone(layer: Layer, reason: str) -> Skipped:
    return Skipped(layer.name, layer.op_type, layer.view.size, reason)


def _without_conflicts(
    model: Lowered, candidates: Sequence[Layer]
) -> tuple[list[Layer], list[tuple[int, Skipped]]]:
    """Leave out layers whose zeros would act elsewhere, or would not fit another layer's."""
    layers = list(candidates)
    refused: list[tuple[int, Skipped]] = []
    while True:
        reasons = {
            name: f"is also read by {by}" for name, by in other_readers(model, layers).items()
        }
        if not reasons:
            overlaps = partial_overlaps(model, layers)
            reasons = {name: f"is in part that of {other!r}" for name, other in overlaps.items()}
        if not reasons:
            return layers, refused
        refused.extend(
            (layer.index, _left_alone(layer, f"its weight {model.called(layer.weight)!r} {why}"))
            for layer in layers
            if (why := reasons.get(layer.name))
        )
        layers = [layer for layer in layers if layer.name not in reasons]


def _distinct_elements(model: Lowered, layers: Sequence[Layer]) -> int:
    """Elements of all weights; by now two weights have all or none in common."""
    first = {model.first_element(layer.weight): layer.view.size for layer in layers}
    return sum(first.values())


def _parameters(model: Model) -> int:
    return sum(
        prod(tensor.dims)
        for tensor in all_tensors(model.proto)
        if tensor.data_type in FLOAT_TYPES and all(dim >= 0 for dim in tensor.dims)
    )
