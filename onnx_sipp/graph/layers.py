"""The prunable layers of a model, and what else multiplies a constant, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase

from onnx_sipp.errors import UsageError
from onnx_sipp.graph.kinds import (
    BUILDERS,
    Layer,
    Skipped,
    as_layer,
    known_operators,
    node_kind,
)
from onnx_sipp.graph.lowering.lowered import Lowered
from onnx_sipp.graph.lowering.rules import RULES
from onnx_sipp.graph.nested import skipped_inside
from onnx_sipp.graph.node import Constants, Label, NotPrunable
from onnx_sipp.graph.sharing import other_readers, partial_overlaps
from onnx_sipp.graph.tensors import is_parameter

__all__ = ["CHOSEN_BY_USER", "Findings", "Layer", "Skipped", "find_layers", "without_layers"]

_EXCLUDED, _NOT_INCLUDED = "excluded by the user", "not included by the user"
# Reasons of `Skipped` that are the user's own.
CHOSEN_BY_USER = (_EXCLUDED, _NOT_INCLUDED)


@dataclass(frozen=True)
class Findings:
    """What `find_layers` saw.

    Attributes:
        layers: prunable layers, in graph order.
        skipped: nodes that multiply a constant and are not prunable, in graph order.
        prunable: elements of all prunable weights, shared ones once.
        parameters: elements of all constants of the model that are floating point, narrow
            integers (of 8 bits and less, as quantised weights are), or the weight of a layer.
        tied: by layer name, what else reads its weight, where that was asked to be pruned too.
    """

    layers: tuple[Layer, ...]
    skipped: tuple[Skipped, ...]
    prunable: int
    parameters: int
    tied: Mapping[str, str] = field(default_factory=dict)


def find_layers(
    model: Lowered,
    exclude_nodes: Sequence[str] = (),
    exclude_op_types: Sequence[str] = (),
    *,
    include_nodes: Sequence[str] = (),
    include_op_types: Sequence[str] = (),
    include_tied: bool = False,
) -> Findings:
    """List the prunable layers of a model, and the nodes left alone with the reason.

    Args:
        model: is not changed.
        exclude_nodes: names of nodes to leave alone, or globs over them. What lies in a node, or
            in a branch of it, is left alone with it.
        exclude_op_types: operator types to leave alone, or globs over them.
        include_nodes: names, or globs, as above: all other layers are left alone. None for all.
        include_op_types: likewise.
        include_tied: list weights, too, that something else than layers reads.

    Raises:
        UsageError: there is no such node or operator.
        SippError: the graph is damaged beyond reading.
    """
    labels = model.plan.labels
    candidates, skipped = _candidates(model)
    names = [name for label in labels for name in _names(label)]
    names = list(dict.fromkeys([*names, *(skip.name for _, skip in skipped)]))
    _refuse_idle([*exclude_nodes, *include_nodes], names, "node is called")
    operators = known_operators(RULES).union(label.op_type for label in labels)
    types = [*exclude_op_types, *include_op_types]
    _refuse_idle(types, sorted(operators), "operator is called")
    barred = _called(labels, exclude_nodes) | _typed(labels, exclude_op_types)
    wanted = set(labels)
    if include_nodes:
        wanted &= _called(labels, include_nodes)
    if include_op_types:
        wanted &= _typed(labels, include_op_types)
    choice = _Choice(model, barred, wanted, include_tied=include_tied)
    layers = choice.among(candidates)
    skipped = sorted([*skipped, *choice.refused], key=lambda item: item[0])
    first = {model.first_element(layer.weight): layer.view.size for layer in layers}
    return Findings(
        layers=tuple(layers),
        skipped=tuple(skip for _, skip in skipped),
        prunable=sum(first.values()),  # by now, two weights have all or no elements in common
        parameters=_parameters(model, layers),
        tied=choice.tied,
    )


def without_layers(model: Lowered, findings: Findings, reasons: Mapping[str, str]) -> Findings:
    """Leave out layers, by name, that share no weight with others; each with the reason."""
    layers = tuple(layer for layer in findings.layers if layer.name not in reasons)
    left = [
        Skipped(layer.name, layer.op_type, layer.view.size, reasons[layer.name])
        for layer in findings.layers
        if layer.name in reasons
    ]
    first = {model.first_element(layer.weight): layer.view.size for layer in layers}
    return replace(
        findings,
        layers=layers,
        skipped=(*findings.skipped, *left),
        prunable=sum(first.values()),
        tied={name: by for name, by in findings.tied.items() if name not in reasons},
    )


def _candidates(model: Lowered) -> tuple[list[Layer], list[tuple[int, Skipped]]]:
    """All nodes that are layers by themselves; the others that weigh a constant, with places."""
    proto, labels = model.proto, model.plan.labels
    constants = Constants.of(proto.graph, model.stored)
    # Nodes that stay beside the layers that stand for what they multiply.
    probed = {
        label.reader
        for node, label in zip(proto.graph.node, labels, strict=True)
        if node_kind(node) in BUILDERS
    }
    candidates: list[Layer] = []
    skipped: list[tuple[int, Skipped]] = []
    for index, (node, label) in enumerate(zip(proto.graph.node, labels, strict=True)):
        if label.name in model.plan.refused:
            skipped.append((index, model.plan.refused[label.name]))
            continue
        if label.reader in probed and node_kind(node) not in BUILDERS:
            continue
        try:
            layer = as_layer(node, label, index, constants)
        except NotPrunable as found:
            reason = Skipped(label.name, label.op_type, found.parameters, str(found))
            skipped.append((index, reason))
        else:
            if layer is not None and model.is_written_through(layer.weight):
                candidates.append(layer)
    skipped.extend(_inside(model, constants, candidates, skipped))
    return candidates, skipped


class _Choice:
    """Leaves out layers that the user excludes, or whose zeros would act elsewhere.

    Args:
        model: that the layers belong to.
        barred: labels of nodes that the user excludes.
        wanted: labels of nodes that the user includes.
        include_tied: whether other nodes may read a weight.

    Attributes:
        refused: the layers that were left out, with their places.
        tied: see `Findings`.
    """

    def __init__(
        self, model: Lowered, barred: set[Label], wanted: set[Label], *, include_tied: bool
    ) -> None:
        self._wanted = wanted
        self._model, self._barred, self._include_tied = model, barred, include_tied
        self._barred_readers = {label.reader for label in barred}
        self.refused: list[tuple[int, Skipped]] = []
        self.tied: dict[str, str] = {}

    def among(self, candidates: Sequence[Layer]) -> list[Layer]:
        """The layers that stay."""
        labels = self._model.plan.labels
        excluded = {
            c.name: _NOT_INCLUDED for c in candidates if labels[c.index] not in self._wanted
        } | {c.name: _EXCLUDED for c in candidates if labels[c.index] in self._barred}
        layers = self._without(candidates, excluded)
        while True:
            reasons = self._tied_elsewhere(layers) or {
                name: f"its weight is in part that of {other!r}"
                for name, other in partial_overlaps(self._model, layers).items()
            }
            if not reasons:
                return layers
            layers = self._without(layers, reasons)

    def _tied_elsewhere(self, layers: Sequence[Layer]) -> dict[str, str]:
        reasons, self.tied = {}, {}
        for layer, reads in other_readers(self._model, layers):
            weight = f"its weight {self._model.called(layer.weight)!r}"
            by = ", ".join(reads)
            if any(read.reader in self._barred_readers for read in reads.values()):
                reasons[layer.name] = f"{weight} is also read by {by}, excluded by the user"
            elif self._include_tied:
                self.tied[layer.name] = by
            else:
                reasons[layer.name] = f"{weight} is also read by {by} (see --include-tied)"
        return reasons

    def _without(self, layers: Sequence[Layer], reasons: Mapping[str, str]) -> list[Layer]:
        self.refused.extend(
            (layer.index, Skipped(layer.name, layer.op_type, layer.view.size, reasons[layer.name]))
            for layer in layers
            if layer.name in reasons
        )
        return [layer for layer in layers if layer.name not in reasons]


def _inside(
    model: Lowered,
    constants: Constants,
    candidates: Sequence[Layer],
    skipped: Sequence[tuple[int, Skipped]],
) -> list[tuple[int, Skipped]]:
    """What is left alone in subgraphs that stay, and in branches that are never taken."""
    labels, refused = model.plan.labels, model.plan.refused
    listed = {skip.name for _, skip in skipped}
    found = [(len(labels), skip) for name, skip in refused.items() if name not in listed]
    known = {labels[layer.index].reader for layer in candidates} | listed | set(refused)
    known |= {label.name for label in labels}
    reasons = {name: skip.reason for name, skip in refused.items()}
    for index, (node, label) in enumerate(zip(model.proto.graph.node, labels, strict=True)):
        if index not in model.plan.taps:
            skips = skipped_inside([(node, label)], constants, known, reasons)
            found.extend((index, skip) for skip in skips)
    skips = skipped_inside(model.plan.left_out, constants, known, reasons)
    return [*found, *((len(labels), skip) for skip in skips)]


def _names(label: Label) -> list[str]:
    """What a node can be called: by its label, its node, and all that it lies in."""
    parts = label.reader.split(" > ")
    outer = [" > ".join(parts[:depth]) for depth in range(1, len(parts))]
    return [label.name, label.reader, *outer]


def _called(labels: Iterable[Label], globs: Sequence[str]) -> set[Label]:
    """The nodes that are called so, or lie in one that is."""
    return {label for label in labels if any(_matches(name, globs) for name in _names(label))}


def _typed(labels: Iterable[Label], globs: Sequence[str]) -> set[Label]:
    """The nodes with one of these operators."""
    return {label for label in labels if _matches(label.op_type, globs)}


def _matches(name: str, globs: Iterable[str]) -> bool:
    """Whether a name is one of these or matches one; names themselves may hold ``[0]``."""
    return any(name == glob or fnmatchcase(name, glob) for glob in globs)


def _refuse_idle(globs: Sequence[str], names: Sequence[str], what: str) -> None:
    for glob in globs:
        if not any(_matches(name, [glob]) for name in names):
            close = get_close_matches(glob, names, 3)
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise UsageError(f"no {what} {glob!r}{hint}")


def _parameters(model: Lowered, layers: Sequence[Layer]) -> int:
    weights = {site for layer in layers for site in model.plan.sites[layer.weight]}
    sizes = model.plan.numbering.sizes
    return sum(
        sizes[site]
        for site, holder in enumerate(model.plan.original.sites.holders)
        if site in weights or is_parameter(holder)
    )
