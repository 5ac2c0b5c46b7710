"""What is done to a pruned model before it is written: it is quantised, and packed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_sipp.calibration.fidelity import OutputFidelity
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.verdict import ensure_no_worse_verdict
from onnx_sipp.prepared import Prepared
from onnx_sipp.report.quantizing import QuantizeReport
from onnx_sipp.report.result import OutputReport, Report

if TYPE_CHECKING:
    from onnx_sipp.packing.pack import PackResult
    from onnx_sipp.quantizing.quantize import Quantized

__all__ = ["Finished", "as_written", "finish"]


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
        packed = _packed(prepared, model)
        packing = packed.report
        if prepared.options.packs_with_loss:
            packing = replace(packing, outputs_before=report.outputs)
            with _opened(packed, prepared) as written:
                report = replace(report, outputs=_rows(prepared.compared(written)))
        report = replace(report, packing=packing)
    return Finished(model, packed, report)


@contextmanager
def as_written(prepared: Prepared, pruned: Model) -> Iterator[Model]:
    """A pruned model as it would be written: quantised, and with values as packing rounds them.

    See `finish`.
    """
    model = pruned
    if prepared.options.quantize:
        model = _in_integers(prepared, pruned).model
    if not prepared.options.packs_with_loss:
        yield model
        return
    with _opened(_packed(prepared, model), prepared) as written:
        yield written


def _packed(prepared: Prepared, model: Model) -> PackResult:
    from onnx_sipp.packing.pack import pack  # noqa: PLC0415 - only where it is used

    prepared.progress.stage("packing")
    return pack(model, values=prepared.options.pack_values)


@contextmanager
def _opened(packed: PackResult, prepared: Prepared) -> Iterator[Model]:
    """A packed model, to be run."""
    folder = prepared.options.workdir
    with tempfile.TemporaryDirectory(prefix="onnx-sipp-", dir=folder) as place:
        path = Path(place) / "model.onnx"
        packed.save(path)
        yield Model.load(path, prepared.dense.libraries)


def _in_integers(prepared: Prepared, pruned: Model) -> Quantized:
    from onnx_sipp.quantizing.quantize import quantize  # noqa: PLC0415 - only where it is used

    samples, options = prepared.samples, prepared.options
    prepared.progress.stage("quantising")
    return quantize(
        pruned, options.quantize, samples.calibration, options.thread_count, options.providers
    )


def _quantized(prepared: Prepared, pruned: Model, report: Report) -> tuple[Model, Report]:
    from onnx_sipp.packing.assembly import Assembly  # noqa: PLC0415 - only where it is used

    done = _in_integers(prepared, pruned)
    ensure_no_worse_verdict(pruned, done.model)
    alone = prepared.compared(done.model, pruned)
    quantization = QuantizeReport(
        kind=prepared.options.quantize,
        weights=done.weights,
        left=done.left,
        relative_errors={output.name: output.relative_error for output in alone},
        outputs_pruned=report.outputs,
        bytes_before=Assembly(pruned).size(),
        bytes_after=Assembly(done.model).size(),
    )
    warnings = [*report.warnings, *done.notes]
    outputs = _rows(prepared.compared(done.model))
    return done.model, replace(
        report, outputs=outputs, quantization=quantization, warnings=warnings
    )


def _rows(outputs: Sequence[OutputFidelity]) -> list[OutputReport]:
    return [OutputReport(**asdict(output)) for output in outputs]
