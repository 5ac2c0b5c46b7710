"""The prunable layers of a model, and what else multiplies a constant, with the reason."""

from __future__ import annotations

from collections import Counter
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
    known_as,
    known_operators,
    node_kind,
    node_labels,
)
from onnx_sipp.graph.lens import Readers
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.nested import functions_called, in_functions, in_subgraphs
from onnx_sipp.graph.node import Constants, NotPrunable
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
    model: Model, exclude_nodes: Sequence[str] = (), exclude_op_types: Sequence[str] = ()
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
    proto = model.proto
    nodes, labels = proto.graph.node, node_labels(proto.graph.node)
    constants = Constants.of(proto.graph, model.stored)
    functions = functions_called(proto)
    candidates: list[Layer] = []
    skipped: list[tuple[int, Skipped]] = []
    for index, (node, label) in enumerate(zip(nodes, labels, strict=True)):
        if node_kind(node) in functions:
            continue
        try:
            layer = as_layer(node, label, index, constants)
            if layer is not None:
                candidates.append(layer)
        except NotPrunable as found:
            skipped.append((index, Skipped(label, known_as(node), found.parameters, str(found))))
        skipped.extend((index, skip) for skip in in_subgraphs(node, label, constants))
    skipped.extend((len(labels), skip) for skip in in_functions(proto, constants))
    _refuse_idle(exclude_nodes, [*labels, *(skip.name for _, skip in skipped)], "node is called")
    operators = known_operators().union(map(known_as, nodes))
    _refuse_idle(exclude_op_types, sorted(operators), "operator is called")
    wanted: list[Layer] = []
    for layer in candidates:
        if _matches(layer.name, exclude_nodes) or _matches(layer.op_type, exclude_op_types):
            skipped.append((layer.index, _left_alone(layer, "excluded by the user")))
        else:
            wanted.append(layer)
    layers, shared = _only_layers_read(wanted, Readers(proto))
    skipped.extend(shared)
    skipped.sort(key=lambda item: item[0])
    return Findings(
        layers=layers,
        skipped=tuple(skip for _, skip in skipped),
        prunable=sum({layer.weight: layer.view.size for layer in layers}.values()),
        parameters=_parameters(model),
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


def _only_layers_read(
    candidates: Sequence[Layer], readers: Readers
) -> tuple[tuple[Layer, ...], list[tuple[int, Skipped]]]:
    """Leave out weights that anything but a layer reads: their zeros would act elsewhere too."""
    as_weight = Counter(layer.weight for layer in candidates)
    nodes = {layer.index for layer in candidates}
    layers, refused = [], []
    for layer in candidates:
        others = readers.beyond(layer.weight, as_weight[layer.weight], nodes)
        if others:
            reason = f"its weight {layer.weight!r} is also read by {others}"
            refused.append((layer.index, _left_alone(layer, reason)))
        else:
            layers.append(layer)
    return tuple(layers), refused


def _parameters(model: Model) -> int:
    return sum(
        prod(tensor.dims)
        for tensor in all_tensors(model.proto)
        if tensor.data_type in FLOAT_TYPES and all(dim >= 0 for dim in tensor.dims)
    )
