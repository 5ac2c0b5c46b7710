"""Compare two models on data: what they give, what they take."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from onnx_sipp import __version__
from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.fidelity import measure_fidelity
from onnx_sipp.calibration.samples import Samples, open_samples
from onnx_sipp.comparing.footprint import Loading, measure_footprints
from onnx_sipp.comparing.latency import batched, measure_latency
from onnx_sipp.comparing.metric import JudgedBy, MetricFunction, load_metric
from onnx_sipp.config.kinds import COUNTS, FUNCTION, NUMBER, checked_keyword, read_as
from onnx_sipp.errors import UsageError
from onnx_sipp.graph.messages import serialized
from onnx_sipp.graph.model import Model, ModelSource
from onnx_sipp.options import available_threads
from onnx_sipp.progress import Progress, Silent
from onnx_sipp.report.comparison import Comparison, Latency, Metric
from onnx_sipp.report.result import OutputReport
from onnx_sipp.store import TensorStore

__all__ = ["BATCH_SIZES", "SECONDS", "compare"]

BATCH_SIZES = (1, 16)
SECONDS = 2.0


def compare(
    dense: ModelSource,
    pruned: ModelSource,
    data: Any = None,
    *,
    metric: str | MetricFunction | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    threads: Sequence[int] | None = None,
    seconds: float = SECONDS,
    num_samples: int | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    states: Mapping[str, str] | None = None,
    providers: Sequence[str] | None = None,
    custom_ops: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> Comparison:
    """Measure two models side by side.

    Args:
        dense: the first model: a path, its bytes, or a ModelProto.
        pruned: the second one; it has the same inputs and outputs.
        data: sample inputs, as for `prune`; all are used. None takes ``test_data_set_*`` beside the
            first model, or makes inputs up, with a warning.
        metric: ``"file.py:function"``, or a function of a model's path; its number is shown for
            both models. A function of a script may take an onnxruntime session instead.
        batch_sizes: for latency.
        threads: numbers of threads for latency; None for one, and all cores.
        seconds: for each measurement of latency; 0 leaves latency out.
        num_samples: most samples for fidelity; None for all.
        input_shapes: shapes of made-up inputs, by name.
        states: inputs that are fed back, and their outputs; None finds them by name.
        providers: onnxruntime execution providers; None for the CPU.
        custom_ops: libraries with operators that onnxruntime must load.
        progress: listens to how far it is.

    Raises:
        UsageError: an argument makes no sense, or the models differ in inputs or outputs.
        SippError: a model or the data cannot be used.
    """
    batch_sizes = read_as(COUNTS, "batch_sizes", batch_sizes)
    threads = None if threads is None else read_as(COUNTS, "threads", threads)
    metric = None if metric is None else read_as(FUNCTION, "metric", metric)
    num_samples = checked_keyword("num_samples", num_samples)
    seconds = read_as(NUMBER, "seconds", seconds)
    _check(batch_sizes, threads, seconds, num_samples)
    providers, states = checked_keyword("providers", providers), checked_keyword("states", states)
    listener = progress or Silent()
    libraries = [Path(library) for library in checked_keyword("custom_ops", custom_ops)]
    models = [Model.load(source, libraries) for source in (dense, pruned)]
    _check_alike(*models)
    judge = load_metric(metric, providers, libraries) if metric is not None else None
    samples = open_samples(
        models[0],
        data,
        num_samples=num_samples,
        seed=0,
        input_shapes=checked_keyword("input_shapes", input_shapes or {}),
        providers=providers,
        hold_out=False,
        default_samples=None,
        states=states,
        store=TensorStore(),
    )
    counts = sorted(set(threads or (1, available_threads())))
    return _measured(
        models, samples, judge, batch_sizes, counts, seconds, providers, libraries, listener
    )


def _measured(
    models: Sequence[Model],
    samples: Samples,
    judge: JudgedBy | None,
    batch_sizes: Sequence[int],
    threads: Sequence[int],
    seconds: float,
    providers: Sequence[str] | None,
    libraries: Sequence[Path],
    listener: Progress,
) -> Comparison:
    """What two models give, and what they take."""
    outputs = _outputs(models, samples, threads[-1], providers, listener)
    feeds = list(islice(samples.calibration, max(batch_sizes)))
    warnings = list(samples.warnings)
    with _as_files(models) as paths:
        listener.stage("loading")
        used = list(providers or ["CPUExecutionProvider"])
        footprints = measure_footprints(paths, Loading(feeds[0], threads[-1], used, libraries))
        batches, left = batched(feeds, samples.inputs, batch_sizes) if seconds else ({}, [])
        if left:
            warnings.append(_batch_warning(left))
        rows = measure_latency(
            paths, batches, threads, seconds, providers=providers, libraries=libraries
        )
        latency = _timed(rows, len(batches) * len(threads), listener)
        found = None if judge is None else Metric(judge.name, *map(judge, paths))
    return Comparison(
        version=__version__,
        dense_name=_name(models[0], "dense model"),
        pruned_name=_name(models[1], "pruned model"),
        source=samples.description,
        samples=len(samples.calibration),
        outputs=outputs,
        dense=footprints[0],
        pruned=footprints[1],
        latency=latency,
        metric=found,
        warnings=warnings,
    )


def _outputs(
    models: Sequence[Model],
    samples: Samples,
    threads: int,
    providers: Sequence[str] | None,
    listener: Progress,
) -> list[OutputReport]:
    """What two models give for the samples, one against the other."""
    listener.stage("comparing outputs")
    execution = Execution(samples.inputs, TensorStore(), threads, providers)
    found = measure_fidelity(
        execution, models[0], models[1], samples.calibration, listener, samples.states
    )
    return [OutputReport(**asdict(output)) for output in found]


def _timed(rows: Iterable[Latency], total: int, listener: Progress) -> list[Latency]:
    """Measure so many rows, one after the other, and tell how far it is."""
    if total:
        listener.stage("measuring latency")
    found = []
    for row in rows:
        found.append(row)
        listener.advance(1, total)
    return found


def _check(
    batch_sizes: Sequence[int],
    threads: Sequence[int] | None,
    seconds: float,
    num_samples: int | None,
) -> None:
    for name, values in (("batch_sizes", batch_sizes), ("threads", threads or [1])):
        if not values or min(values) < 1:
            raise UsageError(f"{name} must be numbers from 1 on, not {list(values)}")
    if not 0 <= seconds < float("inf"):
        raise UsageError(f"seconds must be 0 or more, not {seconds}")
    if num_samples is not None and num_samples < 1:
        raise UsageError(f"num_samples must be at least 1, not {num_samples}")


def _check_alike(dense: Model, pruned: Model) -> None:
    """Refuse models that cannot take each other's place.

    Raises:
        UsageError: their inputs or outputs differ.
    """
    sides = []
    for model in (dense, pruned):
        graph = model.proto.graph
        inputs = {value.name for value in graph.input} - set(model.stored)
        sides.append((inputs, {value.name for value in graph.output}))
    for kind, one, other in zip(("inputs", "outputs"), *sides, strict=True):
        if one != other:
            raise UsageError(
                f"the models have different {kind}, {', '.join(sorted(one)) or 'none'} and "
                f"{', '.join(sorted(other)) or 'none'}, so they cannot be compared"
            )


@contextmanager
def _as_files(models: Sequence[Model]) -> Iterator[tuple[Path, Path]]:
    """The files of two models; those in memory are written to a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="onnx-sipp-") as folder:
        paths = []
        for index, model in enumerate(models):
            path = model.path or Path(folder) / f"{index}.onnx"
            if model.path is None:
                path.write_bytes(serialized(model.proto))
            paths.append(path)
        yield paths[0], paths[1]


def _name(model: Model, otherwise: str) -> str:
    return model.path.name if model.path else otherwise


def _batch_warning(left: Sequence[int]) -> str:
    sizes = ", ".join(map(str, left))
    return f"the model does not take samples in batches of {sizes}: latency was not measured there"
