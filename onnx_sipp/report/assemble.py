"""Put together what a run found out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from onnx_sipp import __version__
from onnx_sipp.calibration.fidelity import OutputFidelity
from onnx_sipp.calibration.samples import Samples
from onnx_sipp.graph.layers import Findings, Layer
from onnx_sipp.graph.model import Model
from onnx_sipp.options import Options
from onnx_sipp.pruning.certificate import Certificate, certify, samples_needed
from onnx_sipp.pruning.importance import LayerStatistics
from onnx_sipp.pruning.methods import Decision
from onnx_sipp.report.result import (
    CalibrationReport,
    LayerReport,
    OutputReport,
    Report,
    SkippedReport,
)
from onnx_sipp.weights import Weight

__all__ = ["assemble"]

Chosen = tuple[Weight, LayerStatistics, Decision]


def assemble(
    dense: Model,
    pruned: Model,
    findings: Findings,
    chosen: Sequence[Chosen],
    errors: Mapping[str, float],
    fidelity: Sequence[OutputFidelity],
    samples: Samples,
    options: Options,
    seconds: float,
) -> Report:
    """Write down what was done to every layer, what is certified, and what was measured.

    Args:
        dense: the model before.
        pruned: the model after.
        findings: its layers and skipped nodes.
        chosen: per weight, what calibration told and what was decided.
        errors: measured output error by layer name.
        fidelity: per output of the graph.
        samples: the data.
        options: of the run.
        seconds: wall time.
    """
    outputs = [stats.patches * w.matrix.shape[0] * w.matrix.shape[1] for w, stats, _ in chosen]
    needed = samples_needed(outputs, options.delta)
    given = len(samples.calibration)
    rows: dict[str, LayerReport] = {}
    for weight, statistics, decision in chosen:
        certificate = certify(
            weight.matrix,
            statistics.sensitivity_max,
            decision.kept,
            decision.sampled,
            patches=statistics.patches,
            samples=given,
            needed=needed,
            delta=options.delta,
        )
        zeros = int(np.count_nonzero(pruned.read(weight.name) == 0))
        for layer in weight.layers:
            rows[layer.name] = _row(layer, weight, decision, certificate, zeros, errors[layer.name])
    layers = [rows[layer.name] for layer in findings.layers]
    total = sum(weight.matrix.size for weight, _, _ in chosen)
    zeros = sum(row.zeros for row in layers if not row.shares_weight_with)
    before = sum(int(np.count_nonzero(weight.matrix == 0)) for weight, _, _ in chosen)
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
        calibration=CalibrationReport(
            source=samples.description,
            synthetic=samples.synthetic,
            samples=given,
            samples_needed=needed,
            held_out=len(samples.held_out),
            delta=options.delta,
        ),
        bytes_before=dense.bytes_on_disk(),
        bytes_after=None,
        seconds=seconds,
        warnings=[*samples.warnings, *_warnings(total, zeros, before, options, given, needed)],
    )


def _row(
    layer: Layer,
    weight: Weight,
    decision: Decision,
    certificate: Certificate,
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
        sampled_halves=int(decision.sampled.sum()),
        halves=int(used.sum()),
        measured_error=error,
        shares_weight_with="" if layer is first else first.name,
    )


def _warnings(
    total: int, zeros: int, before: int, options: Options, given: int, needed: int
) -> list[str]:
    warnings = []
    if options.sparsity is not None and zeros != round(options.sparsity * total):
        warnings.append(
            f"asked for {round(options.sparsity * total)} zeros, but {before} of the {total} "
            f"prunable weights were zero before: the result has {zeros}"
        )
    if given < needed:
        warnings.append(
            f"{given} calibration samples, where the theory asks for {needed}: the certificates "
            f"hold with a larger failure probability than δ = {options.delta:g}"
        )
    return warnings
