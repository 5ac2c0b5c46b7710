"""What users have to know of a pruned model, and may not expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from onnx_sipp.config.applying import WeightRules
from onnx_sipp.graph.layers import Findings
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.measures import Measured
from onnx_sipp.options import Options
from onnx_sipp.outcome import Settled
from onnx_sipp.pruning.error_budget import FLOOR
from onnx_sipp.report.result import LayerReport
from onnx_sipp.report.rows import Basis
from onnx_sipp.weights import Weight

__all__ = [
    "basis_cautions",
    "floor_cautions",
    "large_cautions",
    "layer_cautions",
    "role_cautions",
    "target_cautions",
]

STRONG_DAMPING = 0.3
# Names that a warning spells out; the report has what concerns each layer.
_NAMED = 8
# Of its weights, that a layer may be short of its floor unsaid: budgets count large ones roughly.
_UNTOLD = 1e-3


def target_cautions(
    weights: Sequence[Weight], zeros: int, before: int, options: Options
) -> list[str]:
    """Whether there are other zeros than were asked for."""
    total = sum(weight.size for weight in weights)
    cells = weights[0].cells
    # N:M asks for no number of zeros, and blocks are met to half a block.
    room = 0.5 if cells is None else inf if cells.kept else cells.unit / 2
    if options.sparsity is None or abs(zeros - options.sparsity * total) <= room:
        return []
    reasons = []
    if any(rule.sparsity is not None for rule in options.rules):
        reasons.append("rules give single layers a sparsity of their own")
    if before or not reasons:
        reasons.append(f"{before} of the {total} prunable weights were zero before")
    warning = (
        f"asked for {round(options.sparsity * total)} zeros, but {' and '.join(reasons)}: "
        f"the result has {zeros}"
    )
    return [warning]


def floor_cautions(
    weights: Sequence[Weight],
    rows: Mapping[str, LayerReport],
    rules: WeightRules,
    options: Options,
) -> list[str]:
    """Which layers keep less than the floor that the user gave them.

    Args:
        weights: that were pruned.
        rows: what became of the layers, by name.
        rules: for single weights; a sparsity of its own comes before the floor of all.
        options: of the run.
    """
    firsts = [rows[weight.layers[0].name] for weight in weights]
    kept = [row.parameters - row.zeros for row in firsts]
    asked, short = 0, []
    for index, (weight, row) in enumerate(zip(weights, firsts, strict=True)):
        own = index in rules.floors
        share = rules.floors.get(index, options.floor)
        least = _least(weight, share)
        free = row.observed and index not in rules.sparsity
        asked += least if free else kept[index]
        told = own or (options.floor != FLOOR and index not in rules.sparsity)
        if told and least - kept[index] > _UNTOLD * weight.size:
            short.append(f"{row.name} ({kept[index] / weight.size:.1%}, not {share:.1%})")
    if not short:
        return []
    why = (
        f"the {sum(kept)} weights that stay are fewer than the floors ask for"
        if asked > sum(kept)
        else "weights that do nothing, layers that no sample reached and layers with a sparsity of "
        "their own have no floor"
    )
    return [f"{why}, so these layers keep less: {_listed(short)}"]


def _least(weight: Weight, floor: float) -> int:
    """How many weights that are not zero a floor keeps at least."""
    unit = 1 if weight.cells is None else weight.cells.unit
    inside = weight.alive * unit - weight.capacity  # zeros in cells that are not all zero
    return max(0, min(int(floor * weight.units), weight.alive) * unit - inside)


def basis_cautions(basis: Basis) -> list[str]:
    """Whether the certificates rest on too few samples."""
    if basis.samples >= basis.needed:
        return []
    plural = "" if basis.samples == 1 else "s"
    warning = (
        f"{basis.samples} calibration sample{plural}, where the theory asks for {basis.needed}: "
        f"the certificates hold with a larger failure probability than δ = {basis.delta:g}"
    )
    return [warning]


def role_cautions(dense: Lowered, weights: Sequence[Weight]) -> list[str]:
    """Which shared weights were refitted for some of their layers only."""
    return [
        f"the weight {dense.weight_name(weight.name)!r} is multiplied in different ways; "
        f"it was chosen and refitted for {weight.layers[0].name!r} and layers that use it alike"
        for weight in weights
        if weight.places
    ]


def large_cautions(measured: Sequence[Measured], settled: Sequence[Settled]) -> list[str]:
    """Which layers have inputs that nothing could be learned from, as they are so large."""
    names = [
        layer.name
        for found, one in zip(measured, settled, strict=True)
        if found.patches and one.refit is not None and one.refit.too_large
        for layer in found.weight.layers
    ]
    if not names:
        return []
    warning = (
        "what these layers multiply, or give, is so large (beyond about 1e15) that float32 has no "
        "room for its squares, so nothing was learned from it, and the weights were not refitted; "
        f"scale the model or its inputs down: {_listed(names)}"
    )
    return [warning]


def layer_cautions(layers: Sequence[LayerReport], findings: Findings, dense: Lowered) -> list[str]:
    """What has to be known of single layers.

    Args:
        layers: what became of them.
        findings: all layers of the model.
        dense: the lowered model before.
    """
    return [
        *_tied_warnings(layers),
        *_unseen_warnings(layers, findings, dense),
        *_refit_warnings(layers),
    ]


def _tied_warnings(layers: Sequence[LayerReport]) -> list[str]:
    """Which zeros act elsewhere, too."""
    return [
        f"the weight {layer.weight!r} of {layer.name!r} is also read by {layer.also_read_by}: "
        "what was changed in it acts there too, and was not calibrated for that"
        for layer in layers
        if layer.also_read_by
    ]


def _unseen_warnings(
    layers: Sequence[LayerReport], findings: Findings, dense: Lowered
) -> list[str]:
    """Which weights were chosen without knowing what they multiply."""
    unseen = {layer.name for layer in layers if not layer.observed}
    hidden = {one.name for one in findings.layers if one.activation in dense.plan.unwatched}
    return [
        f"{why}, so the weights were chosen by magnitude alone, and what that costs is not known "
        f"({mend}): {_listed([layer.name for layer in layers if layer.name in names])}"
        for names, why, mend in (
            (
                unseen - hidden,
                "no sample reached these layers",
                "give samples that reach them, or exclude them",
            ),
            (
                unseen & hidden,
                "what these layers multiply has another shape in every iteration of a loop",
                "exclude them to leave them alone",
            ),
        )
        if names
    ]


def _refit_warnings(layers: Sequence[LayerReport]) -> list[str]:
    """Which layers were not refitted, and which needed strong damping."""
    warnings = []
    unused = [layer.name for layer in layers if layer.damping == 0 and layer.observed]
    if unused:
        warnings.append(
            "the refit did not lower the error on held-out samples and was not used in: "
            + _listed(unused)
        )
    damped = [layer.name for layer in layers if (layer.damping or 0) > STRONG_DAMPING]
    if damped:
        warnings.append(
            f"the refit was damped strongly (λ > {STRONG_DAMPING}), because there are few samples "
            f"for the fan-in; more samples would help: {_listed(damped)}"
        )
    return warnings


def _listed(names: Sequence[str]) -> str:
    """Names of layers, the first ones if they are many."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more (see the report)" if more > 0 else "")
