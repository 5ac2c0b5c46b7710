"""What can be pruned in a model, found out without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto

from onnx_sipp.config.kinds import checked_keyword
from onnx_sipp.graph.layers import Findings, find_layers
from onnx_sipp.graph.lowering import Lowered, lower
from onnx_sipp.graph.model import Model
from onnx_sipp.report.result import SkippedReport

__all__ = ["Inspection", "PrunableLayer", "inspect"]


@dataclass(frozen=True)
class PrunableLayer:
    """A layer that `prune` would prune.

    Attributes:
        name: of the node.
        op_type: of the node.
        weight: name of the constant.
        route: how the constant reaches the node.
        shape: of the constant.
        groups: matrices that the constant holds.
        neurons: rows of each matrix.
        fan_in: columns of each matrix.
        parameters: elements of the constant.
        zeros: how many of them are zero.
        also_read_by: what else than layers reads the constant, "" if nothing does.
    """

    name: str
    op_type: str
    weight: str
    route: str
    shape: list[int]
    groups: int
    neurons: int
    fan_in: int
    parameters: int
    zeros: int
    also_read_by: str = ""


@dataclass(frozen=True)
class Inspection:
    """What `inspect` saw.

    Attributes:
        layers: prunable layers, in graph order.
        skipped: nodes that multiply a constant and are left alone, with reasons.
        prunable: elements of all prunable weights, shared ones once.
        parameters: elements of all floating-point and quantised constants.
    """

    layers: list[PrunableLayer]
    skipped: list[SkippedReport]
    prunable: int
    parameters: int

    @property
    def share(self) -> float:
        """Share of all parameters that can be pruned."""
        return self.prunable / self.parameters if self.parameters else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON types only."""
        return {**asdict(self), "share": self.share}


def inspect(
    model: ModelProto | bytes | str | Path,
    *,
    exclude_nodes: Sequence[str] = (),
    exclude_op_types: Sequence[str] = (),
    include_nodes: Sequence[str] = (),
    include_op_types: Sequence[str] = (),
    include_tied: bool = False,
) -> Inspection:
    """List what can be pruned, and what cannot and why.

    Args:
        model: a path, the bytes of a model, or a ModelProto; it is never changed.
        exclude_nodes: globs over names of nodes to leave alone.
        exclude_op_types: operator types to leave alone.
        include_nodes: globs over names of nodes: all others are left alone. None for all.
        include_op_types: likewise for operator types.
        include_tied: list weights, too, that something else than layers reads.

    Raises:
        UsageError: there is no such file, a glob matches nothing, or an argument is of another
            kind.
        SippError: the model cannot be read.
    """
    selection = {
        "exclude_nodes": exclude_nodes,
        "exclude_op_types": exclude_op_types,
        "include_nodes": include_nodes,
        "include_op_types": include_op_types,
        "include_tied": include_tied,
    }
    given = {n: checked_keyword(n, value) for n, value in selection.items() if value is not None}
    lowered = lower(Model.load(model))
    findings = find_layers(lowered, **given)
    return Inspection(
        layers=_layers(lowered, findings),
        skipped=[SkippedReport(**asdict(skip)) for skip in findings.skipped],
        prunable=findings.prunable,
        parameters=findings.parameters,
    )


def _layers(model: Lowered, findings: Findings) -> list[PrunableLayer]:
    rows = []
    for layer in findings.layers:
        groups, neurons, fan_in = layer.view.matrix
        rows.append(
            PrunableLayer(
                name=layer.name,
                op_type=layer.op_type,
                weight=model.weight_name(layer.weight),
                route=model.route(layer.weight),
                shape=list(layer.view.stored),
                groups=groups,
                neurons=neurons,
                fan_in=fan_in,
                parameters=layer.view.size,
                zeros=int((model.read(layer.weight) == 0).sum()),
                also_read_by=findings.tied.get(layer.name, ""),
            )
        )
    return rows
