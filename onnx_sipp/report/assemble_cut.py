"""Put together what a run found out that cut channels out of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from onnx_sipp import __version__
from onnx_sipp.calibration.fidelity import OutputFidelity
from onnx_sipp.calibration.samples import Samples
from onnx_sipp.channels.run import Cut
from onnx_sipp.graph.kinds import node_labels
from onnx_sipp.graph.layers import Findings
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.options import Options
from onnx_sipp.report.result import (
    CalibrationReport,
    CutReport,
    GroupReport,
    OutputReport,
    Report,
    SkippedReport,
)
from onnx_sipp.weights import Weight

__all__ = ["assemble_cut"]

# Why a group that could be cut was not.
_SPARED = "to cut others costs less"


def assemble_cut(
    dense: Lowered,
    findings: Findings,
    weights: Sequence[Weight],
    cut: Cut,
    fidelity: Sequence[OutputFidelity],
    samples: Samples,
    options: Options,
    seconds: float,
) -> Report:
    """Write down what became of every group, and what was measured.

    Args:
        dense: the lowered model before.
        findings: its layers and skipped nodes.
        weights: that were refitted.
        cut: the model after, and its groups.
        fidelity: per output of the graph.
        samples: the data.
        options: of the run.
        seconds: wall time.
    """
    original = dense.plan.original
    return Report(
        version=__version__,
        options=options.to_dict(),
        prunable=sum(weight.size for weight in weights),
        zeros=0,
        zeros_before=0,
        parameters=findings.parameters,
        layers=[],
        skipped=[SkippedReport(**asdict(skip)) for skip in findings.skipped],
        outputs=[OutputReport(**asdict(output)) for output in fidelity],
        calibration=_calibration(samples, options.delta),
        bytes_before=original.bytes_on_disk(),
        bytes_after=None,
        seconds=seconds,
        model=original.path.name if original.path else "",
        budget=cut.plan,
        budgets=dict(cut.plans),
        warnings=[*samples.warnings, *dense.plan.notes],
        cut=_cut(dense, cut),
    )


def _calibration(samples: Samples, delta: float) -> CalibrationReport:
    return CalibrationReport(
        source=samples.description,
        synthetic=samples.synthetic,
        samples=len(samples.calibration),
        samples_certified=0,
        samples_needed=0,
        held_out=len(samples.held_out),
        delta=delta,
    )


def _cut(dense: Lowered, cut: Cut) -> CutReport:
    return CutReport(
        groups=_groups(dense, cut),
        macs_before=round(cut.macs[0]),
        macs_after=round(cut.macs[1]),
        parameters_before=round(cut.parameters[0]),
        parameters_after=round(cut.parameters[1]),
        latency=cut.latency,
    )


def _groups(dense: Lowered, cut: Cut) -> list[GroupReport]:
    names = node_labels(dense.plan.original.proto.graph.node)
    contractions = cut.coupling.trace.contractions
    return [
        GroupReport(
            name=group.name,
            readers=[names[contractions[reader].node] for reader in group.readers],
            units=group.count,
            width=group.size,
            kept=int(cut.counts[number]),
            chosen_by=cut.ways.get(number, "") if cut.counts[number] < group.count else "",
            reason=group.reason or ("" if cut.counts[number] < group.count else _SPARED),
        )
        for number, group in enumerate(cut.coupling.groups)
    ]
