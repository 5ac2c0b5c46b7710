"""What is done to a pruned model before it is written: it is quantised, and packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from onnx_sipp.calibration.fidelity import OutputFidelity, measure_fidelity
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.verdict import ensure_no_worse_verdict
from onnx_sipp.prepared import Prepared
from onnx_sipp.report.quantizing import QuantizeReport
from onnx_sipp.report.result import OutputReport, Report

if TYPE_CHECKING:
    from onnx_sipp.packing.pack import PackResult

__all__ = ["Finished", "finish"]


@dataclass(frozen=True)
class Finished:
    """What will be written.

    Attributes:
        model: pruned, and quantised if that was asked for.
        packed: the same packed, None if it was not asked for.
        report: the report, with what was done here.
    """

    model: Model
    packed: PackResult | None
    report: Report


def finish(prepared: Prepared, pruned: Model, report: Report) -> Finished:
    """Quantise and pack, as far as that was asked for.

    Args:
        prepared: the model before; activations are calibrated on its samples, fidelity is measured
            on those held out.
        pruned: the model after.
        report: of pruning.

    Raises:
        UsageError: the model cannot be quantised.
        SippError: the quantiser fails, or onnxruntime refuses the result.
    """
    options, model = prepared.options, pruned
    if options.quantize:
        model, report = _quantized(prepared, pruned, report)
    packed = None
    if options.storage == "packed":
        from onnx_sipp.packing.pack import pack  # noqa: PLC0415 - only where it is used

        prepared.progress.stage("packing")
        packed = pack(model, values=options.pack_values)
        report = replace(report, packing=packed.report)
    return Finished(model, packed, report)


def _quantized(prepared: Prepared, pruned: Model, report: Report) -> tuple[Model, Report]:
    from onnx_sipp.packing.assembly import Assembly  # noqa: PLC0415 - only where it is used
    from onnx_sipp.quantizing.quantize import quantize  # noqa: PLC0415

    samples, options, progress = prepared.samples, prepared.options, prepared.progress
    progress.stage("quantising")
    done = quantize(
        pruned, options.quantize, samples.calibration, options.thread_count, options.providers
    )
    ensure_no_worse_verdict(pruned, done.model)
    progress.stage("comparing quantised outputs")
    alone, together = (
        measure_fidelity(
            prepared.execution, before, done.model, samples.held_out, progress, samples.states
        )
        for before in (pruned, prepared.dense)
    )
    quantization = QuantizeReport(
        kind=options.quantize,
        weights=done.weights,
        left=done.left,
        relative_errors={output.name: output.relative_error for output in alone},
        outputs_pruned=report.outputs,
        bytes_before=Assembly(pruned).size(),
        bytes_after=Assembly(done.model).size(),
    )
    warnings = [*report.warnings, *([done.note] if done.note else [])]
    return done.model, replace(
        report, outputs=_rows(together), quantization=quantization, warnings=warnings
    )


def _rows(outputs: Sequence[OutputFidelity]) -> list[OutputReport]:
    return [OutputReport(**asdict(output)) for output in outputs]
