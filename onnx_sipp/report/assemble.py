"""Put together what a run found out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import prod

from onnx_sipp import __version__
from onnx_sipp.calibration.fidelity import OutputFidelity
from onnx_sipp.calibration.samples import Samples
from onnx_sipp.config.applying import rules_of
from onnx_sipp.graph.layers import Findings
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.steps import steps_of
from onnx_sipp.measures import Measured
from onnx_sipp.options import Options
from onnx_sipp.outcome import Outcome
from onnx_sipp.pruning.certificate import samples_needed
from onnx_sipp.report.cautions import (
    basis_cautions,
    floor_cautions,
    large_cautions,
    layer_cautions,
    role_cautions,
    target_cautions,
)
from onnx_sipp.report.details import StepReport
from onnx_sipp.report.result import CalibrationReport, OutputReport, Report, SkippedReport
from onnx_sipp.report.rows import Basis, layer_rows
from onnx_sipp.weights import Weight

__all__ = ["assemble"]


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
    needed = samples_needed(outputs, options.delta)
    basis = Basis(certified, needed, options.delta, options.thread_count)
    rows = layer_rows(dense, findings, measured, outcome, errors, basis)
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
            *target_cautions(weights, zeros, before, options),
            *floor_cautions(weights, rows, rules_of(dense, weights, options.rules), options),
            *basis_cautions(basis),
            *layer_cautions(layers, findings, dense),
            *large_cautions(measured, outcome.settled),
            *(role_cautions(dense, weights) if outcome.settled[0].refit else []),
            *outcome.notes,
        ],
    )


def _calibration(samples: Samples, basis: Basis) -> CalibrationReport:
    return CalibrationReport(
        source=samples.description,
        synthetic=samples.synthetic,
        samples=samples.learned_from,
        samples_certified=basis.samples,
        samples_needed=basis.needed,
        held_out=len(samples.held_out),
        delta=basis.delta,
    )
