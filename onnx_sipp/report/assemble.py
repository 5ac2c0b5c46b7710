"""Put together what a run found out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, prod

import numpy as np
from numpy.typing import NDArray

from onnx_sipp import __version__
from onnx_sipp.calibration.fidelity import OutputFidelity
from onnx_sipp.calibration.samples import Samples
from onnx_sipp.fitting import why_no_sparse_cores
from onnx_sipp.graph.layers import Findings, Layer
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.steps import steps_of
from onnx_sipp.measures import Measured
from onnx_sipp.options import Options
from onnx_sipp.outcome import Outcome, Refit
from onnx_sipp.pruning.certificate import Certificate, certify, samples_needed
from onnx_sipp.report.details import CurveReport, Distribution, StepReport
from onnx_sipp.report.result import (
    CalibrationReport,
    LayerReport,
    OutputReport,
    Report,
    SkippedReport,
)
from onnx_sipp.weights import Weight

__all__ = ["assemble"]

STRONG_DAMPING = 0.3


def assemble(
    dense: Lowered,
    findings: Findings,
    weights: Sequence[Weight],
    measured: Sequence[Measured],
    outcome: Outcome,
    errors: Mapping[str, float],
    fidelity: Sequence[OutputFidelity],
    samples: Samples,
    certified: int,
    options: Options,
    seconds: float,
) -> Report:
    """Write down what was done to every layer, what is certified, and what was measured.

    Args:
        dense: the lowered model before.
        findings: its layers and skipped nodes.
        weights: that were pruned.
        measured: per weight, what calibration told.
        outcome: the model after, and per weight what was decided.
        errors: measured output error by layer name.
        fidelity: per output of the graph.
        samples: the data.
        certified: how many of the calibration samples the sensitivities were measured on.
        options: of the run.
        seconds: wall time.
    """
    outputs = [max(1, found.patches) * prod(found.weight.shape[:2]) for found in measured]
    basis = _Basis(certified, samples_needed(outputs, options.delta), options.delta)
    rows = _rows(dense, findings, measured, outcome, errors, basis)
    layers, original = [rows[layer.name] for layer in findings.layers], dense.plan.original
    total = sum(weight.size for weight in weights)
    zeros = sum(row.zeros for row in layers if not row.shares_weight_with)
    before = total - sum(weight.capacity for weight in weights)
    return Report(
        version=__version__,
        options=options.to_dict(),
        prunable=total,
        zeros=zeros,
        zeros_before=before,
        parameters=findings.parameters,
        layers=layers,
        skipped=[SkippedReport(**asdict(skip)) for skip in findings.skipped],
        outputs=[OutputReport(**asdict(output)) for output in fidelity],
        calibration=_calibration(samples, basis),
        bytes_before=original.bytes_on_disk(),
        bytes_after=None,
        seconds=seconds,
        budget=outcome.plan,
        budgets=dict(outcome.plans),
        freed=sum(outcome.respent.weights),
        freed_errors=list(outcome.respent.errors),
        model=original.path.name if original.path else "",
        steps=StepReport.of(steps_of(original, rows)),
        warnings=[
            *samples.warnings,
            *dense.plan.notes,
            *_target_warnings(weights, zeros, before, options),
            *_basis_warnings(basis),
            *_tied_warnings(layers),
            *_unseen_warnings(layers, findings, dense),
            *_refit_warnings(layers),
            *(_role_warnings(dense, weights) if outcome.settled[0].refit else []),
            *outcome.notes,
        ],
    )


@dataclass(frozen=True)
class _Basis:
    """What the certificates of a run rest on.

    Attributes:
        samples: that the sensitivities were measured on.
        needed: how many the theory asks for.
        delta: failure probability of the bounds.
    """

    samples: int
    needed: int
    delta: float


def _calibration(samples: Samples, basis: _Basis) -> CalibrationReport:
    return CalibrationReport(
        source=samples.description,
        synthetic=samples.synthetic,
        samples=samples.learned_from,
        samples_certified=basis.samples,
        samples_needed=basis.needed,
        held_out=len(samples.held_out),
        delta=basis.delta,
    )


def _rows(
    dense: Lowered,
    findings: Findings,
    measured: Sequence[Measured],
    outcome: Outcome,
    errors: Mapping[str, float],
    basis: _Basis,
) -> dict[str, LayerReport]:
    """What became of every layer, by its name."""
    rows: dict[str, LayerReport] = {}
    for index, (found, settled) in enumerate(zip(measured, outcome.settled, strict=True)):
        weight = found.weight
        zeros = sum(
            int(np.count_nonzero(block.stored_in(outcome.model) == 0)) for block in weight.blocks
        )
        for layer in weight.layers:
            sampled = _sampled_halves(weight, layer, settled.sampled)
            certificate = _certificate(found, layer, outcome.model, sampled, basis)
            bias = outcome.biases.get(layer.name, "")
            row = _row(layer, weight, certificate, settled.refit, zeros, errors[layer.name])
            if not found.patches:
                row = replace(row, observed=False, epsilon_worst=inf, epsilon_median=inf)
            rows[layer.name] = replace(
                row,
                weight=dense.weight_name(layer.weight),
                also_read_by=findings.tied.get(layer.name, ""),
                sampled_halves=int(sampled.sum()),
                bias=dense.weight_name(bias) if bias else "",
                bias_is_new=dense.is_spare(bias),
                freed=outcome.respent.weights[index] if outcome.respent.weights else 0,
                dead_neurons=_dead_neurons(outcome, index),
                no_sparse_cores=None
                if weight.pattern is None
                else why_no_sparse_cores(dense, layer, weight.pattern),
            )
        first = weight.layers[0].name
        rows[first] = replace(
            rows[first],
            sensitivities=_distribution(found, outcome.model),
            curve=_curve(outcome, index),
        )
    return rows


def _distribution(found: Measured, model: Lowered) -> Distribution:
    """How the sensitivities of a weight are distributed."""
    return Distribution.of(
        [
            (found.maximum.block(number), block.matrix_in(model) != 0)
            for number, block in enumerate(found.weight.blocks)
        ]
    )


def _curve(outcome: Outcome, index: int) -> CurveReport | None:
    curve = outcome.curves[index] if outcome.curves else None
    return None if curve is None else CurveReport(list(curve.sparsities), list(curve.errors))


def _dead_neurons(outcome: Outcome, index: int) -> int:
    neurons = outcome.respent.neurons
    return int(neurons[index].sum()) if neurons else 0


def _certificate(
    measured: Measured,
    layer: Layer,
    model: Lowered,
    sampled: NDArray[np.bool_],
    basis: _Basis,
) -> Certificate:
    """What is proven of a layer, block by block."""
    weight = measured.weight
    parts = [
        certify(
            weight.as_seen_by(layer, block.matrix),
            weight.as_seen_by(layer, measured.maximum.block(number)),
            weight.as_seen_by(layer, block.matrix_in(model)),
            sampled[:, :, block.rows] if len(weight.blocks) > 1 else sampled,
            patches=measured.patches,
            samples=basis.samples,
            needed=basis.needed,
            delta=basis.delta,
        )
        for number, block in enumerate(weight.blocks)
    ]
    return Certificate(
        np.concatenate([part.epsilon for part in parts], axis=2),
        np.concatenate([part.sensitivity_sums for part in parts], axis=2),
        basis.delta,
        basis.samples,
        basis.needed,
    )


def _sampled_halves(weight: Weight, layer: Layer, sampled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which halves of a layer's own neurons were sampled."""
    if weight.seen_alike(layer):
        return sampled
    # It sees the matrix turned round, and nobody sampled the halves of its neurons.
    groups, outs, _ = layer.view.matrix
    return np.zeros((2, groups, outs), np.bool_)


def _row(
    layer: Layer,
    weight: Weight,
    certificate: Certificate,
    refit: Refit | None,
    zeros: int,
    error: float,
) -> LayerReport:
    sums = certificate.sensitivity_sums
    used = sums > 0
    first = weight.layers[0]
    return LayerReport(
        name=layer.name,
        op_type=layer.op_type,
        weight=layer.weight,
        shape=list(layer.view.stored),
        parameters=layer.view.size,
        zeros=zeros,
        epsilon_worst=certificate.worst,
        epsilon_median=certificate.median,
        sensitivity_sum_worst=float(sums.max(initial=0.0)),
        sensitivity_sum_median=float(np.median(sums[used])) if used.any() else 0.0,
        sampled_halves=0,
        halves=int(used.sum()),
        measured_error=error,
        candidate=refit.candidate if refit else "",
        damping=refit.damping if refit else None,
        refit_error_before=float(np.sqrt(refit.error_before)) if refit else None,
        refit_error=float(np.sqrt(refit.error)) if refit else None,
        shares_weight_with="" if layer is first else first.name,
    )


def _target_warnings(
    weights: Sequence[Weight], zeros: int, before: int, options: Options
) -> list[str]:
    """Whether there are other zeros than were asked for."""
    total = sum(weight.size for weight in weights)
    cells = weights[0].cells
    # N:M asks for no number of zeros, and blocks are met to half a block.
    room = 0.5 if cells is None else inf if cells.kept else cells.unit / 2
    if options.sparsity is None or abs(zeros - options.sparsity * total) <= room:
        return []
    warning = (
        f"asked for {round(options.sparsity * total)} zeros, but {before} of the {total} "
        f"prunable weights were zero before: the result has {zeros}"
    )
    return [warning]


def _basis_warnings(basis: _Basis) -> list[str]:
    """Whether the certificates rest on too few samples."""
    if basis.samples >= basis.needed:
        return []
    warning = (
        f"{basis.samples} calibration samples, where the theory asks for {basis.needed}: the "
        f"certificates hold with a larger failure probability than δ = {basis.delta:g}"
    )
    return [warning]


def _role_warnings(dense: Lowered, weights: Sequence[Weight]) -> list[str]:
    """Which shared weights were refitted for some of their layers only."""
    return [
        f"the weight {dense.weight_name(weight.name)!r} is multiplied in different ways; "
        f"it was chosen and refitted for {weight.layers[0].name!r} and layers that use it alike"
        for weight in weights
        if weight.places
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
        f"({mend}): {', '.join(layer.name for layer in layers if layer.name in names)}"
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
            + ", ".join(unused)
        )
    damped = [layer.name for layer in layers if (layer.damping or 0) > STRONG_DAMPING]
    if damped:
        warnings.append(
            f"the refit was damped strongly (λ > {STRONG_DAMPING}), because there are few samples "
            "for the fan-in; more samples would help: " + ", ".join(damped)
        )
    return warnings
