"""The whole curve of a model: what every sparsity costs and brings, from one calibration."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnx_sipp import __version__
from onnx_sipp.allocator import freed_memory_given_back
from onnx_sipp.budgeting.passes import Passes
from onnx_sipp.budgeting.run import LEAST_SHARE
from onnx_sipp.checked import checked_options
from onnx_sipp.choices import DEFAULT_METHOD, PRUNE_ONLY
from onnx_sipp.cluster.hiring import hired
from onnx_sipp.comparing.footprint import zstd_bytes
from onnx_sipp.comparing.metric import MetricFunction
from onnx_sipp.config.kinds import FUNCTION, NUMBERS, read_as
from onnx_sipp.errors import UsageError
from onnx_sipp.graph.model import Model, ModelSource
from onnx_sipp.options import Options
from onnx_sipp.packing.pack import pack
from onnx_sipp.pipeline import result_of
from onnx_sipp.prepared import Prepared
from onnx_sipp.preparing import prepare
from onnx_sipp.progress import Progress, Silent
from onnx_sipp.report.result import Report
from onnx_sipp.report.sweep import LayerCurve, Sweep, SweepDense, SweepPoint
from onnx_sipp.searching.judge import Metered
from onnx_sipp.sweeping.per_layer import layer_curves
from onnx_sipp.threads import one_blas_thread

__all__ = ["SPARSITIES", "sweep"]

SPARSITIES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def sweep(
    model: ModelSource,
    calibration: Any = None,
    *,
    sparsities: Sequence[float] = SPARSITIES,
    per_layer: bool = False,
    metric: str | MetricFunction | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Sweep:
    """Prune at several sparsities over one calibration, and measure each; nothing is written.

    Args:
        model: a path, the bytes of a model, or a ModelProto; it is never changed.
        calibration: sample inputs, as for `prune`.
        sparsities: to prune at.
        per_layer: prune every layer alone instead, and look at the outputs.
        metric: ``"file.py:function"``, or a function of a model's path; its number is shown.
        progress: listens to how far it is.
        **options: those of `prune`, but for what fixes the sparsity.

    Raises:
        UsageError: an option or argument makes no sense.
        SippError: the model or the data cannot be used.
    """
    shares = _checked(sparsities)
    metric = None if metric is None else read_as(FUNCTION, "metric", metric)
    chosen = _options(options, shares, per_layer=per_layer, metric=metric)
    task = {"sparsities": shares, "per_layer": per_layer}
    with one_blas_thread(), freed_memory_given_back(), hired(chosen.scheduler) as crew:
        prepared = prepare(model, calibration, chosen, progress or Silent(), task, crew)
        judge = None if metric is None else Metered(prepared, metric)
        points, layers, warnings = _curves(prepared, shares, judge, per_layer=per_layer)
    sizes = _sizes(prepared.dense, chosen.workdir)
    prepared.finished()
    return Sweep(
        version=__version__,
        model=prepared.dense.path.name if prepared.dense.path else "a model from memory",
        options=chosen.to_dict(),
        source=prepared.samples.description,
        samples=prepared.samples.learned_from,
        held_out=len(prepared.samples.held_out),
        prunable=sum(weight.size for weight in prepared.weights),
        dense=SweepDense(*sizes, None if judge is None else judge.dense),
        points=points,
        sparsities=shares,
        layers=layers,
        metric_name="" if judge is None else judge.name,
        warnings=warnings,
        seconds=time.perf_counter() - prepared.started,
    )


def _checked(sparsities: Sequence[float]) -> list[float]:
    """In ascending order, each once.

    Raises:
        UsageError: they are no list, one is no share, or there is none.
    """
    shares: list[float] = read_as(NUMBERS, "sparsities", sparsities)
    if not shares or not all(0 <= share < 1 for share in shares):
        raise UsageError(f"sparsities must be shares from 0 on and below 1, like 0.5, not {shares}")
    return sorted(set(shares))


def _options(
    options: dict[str, Any],
    shares: Sequence[float],
    *,
    per_layer: bool,
    metric: str | MetricFunction | None,
) -> Options:
    """Check the options of `prune` as they stand for all points.

    Raises:
        UsageError: one of them makes no sense here.
    """
    given = [name for name in PRUNE_ONLY if options.get(name) is not None]
    if given:
        raise UsageError(
            f"a sweep goes through sparsities and writes no model; leave {' and '.join(given)} out"
        )
    chosen = checked_options({**options, "sparsity": shares[0]})
    if chosen.parsed_pattern is not None and chosen.zero_pattern is None:
        raise UsageError("a sweep is about zeros; cut channels at every goal by itself")
    if per_layer and (chosen.method != DEFAULT_METHOD or metric is not None):
        raise UsageError(
            "layers are pruned alone by the default method, and judged by the outputs' error; "
            "leave the method and the metric out"
        )
    return replace(chosen, sparsity=None)


def _curves(
    prepared: Prepared, shares: Sequence[float], judge: Metered | None, *, per_layer: bool
) -> tuple[list[SweepPoint], list[LayerCurve], list[str]]:
    """The curve of the whole model, or those of its layers; also all that the user must know."""
    if per_layer:
        layers, notes = layer_curves(prepared, shares)
        return [], layers, [*prepared.samples.warnings, *notes]
    points, warnings = _points(prepared, shares, judge)
    return points, [], warnings


def _points(
    prepared: Prepared, shares: Sequence[float], judge: Metered | None
) -> tuple[list[SweepPoint], list[str]]:
    """Prune the whole model at every sparsity; also all that the user must know, each once."""
    points: list[SweepPoint] = []
    warnings = list(prepared.samples.warnings)
    passes = Passes(prepared, prepared.goal(shares[0]), LEAST_SHARE)
    for share in shares:
        outcome = passes.careful(prepared.goal(share))
        report = result_of(prepared, outcome).report
        points.append(_point(report, outcome.model.result(), prepared.options.workdir, judge))
        warnings += [told for told in report.warnings if told not in warnings]
    return points, warnings


def _point(
    report: Report, pruned: Model, workdir: Path | None, judge: Metered | None
) -> SweepPoint:
    errors = [o.relative_error for o in report.outputs if o.relative_error is not None]
    alike = [o.top1_agreement for o in report.outputs if o.top1_agreement is not None]
    layer_errors = np.array([layer.measured_error for layer in report.layers])
    plain, compressed = _sizes(pruned, workdir)
    return SweepPoint(
        sparsity=report.sparsity,
        zeros=report.zeros,
        bytes=plain,
        bytes_zstd=compressed,
        bytes_packed=pack(pruned).report.bytes_after,
        relative_error=max(errors, default=None),
        top1_agreement=min(alike, default=None),
        metric=None if judge is None else judge(pruned),
        epsilon_median=float(np.median([layer.epsilon_median for layer in report.layers])),
        epsilon_worst=max(layer.epsilon_worst for layer in report.layers),
        layer_error=float(np.nanmax(layer_errors)) if np.isfinite(layer_errors).any() else np.nan,
        budget=report.budget,
        outputs=report.outputs,
    )


def _sizes(model: Model, workdir: Path | None) -> tuple[int, int]:
    """Bytes of a model's files, and of those compressed by zstd."""
    with tempfile.TemporaryDirectory(prefix="onnx-sipp-", dir=workdir) as folder:
        path = Path(folder) / "model.onnx"
        model.save(path)
        files = Model.load(path).files
        return sum(file.stat().st_size for file in files), sum(map(zstd_bytes, files))
