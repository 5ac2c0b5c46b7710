"""Read a model, find its layers, and observe them, unless what they show is known already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_sipp import __version__
from onnx_sipp.allocator import keep_freed_memory
from onnx_sipp.choices import DEFAULT_METHOD
from onnx_sipp.examining import examine
from onnx_sipp.graph.model import ModelSource
from onnx_sipp.keeping.fingerprint import Fingerprint
from onnx_sipp.keeping.folder import RunFolder
from onnx_sipp.keeping.statistics import About, StatisticsFile, write_statistics
from onnx_sipp.measures import Measured, measure_statistics
from onnx_sipp.memory import KEPT_BYTES
from onnx_sipp.options import Options
from onnx_sipp.prepared import Prepared
from onnx_sipp.progress import Progress
from onnx_sipp.store import TensorStore

if TYPE_CHECKING:
    from onnx_sipp.cluster.crew import Crew

__all__ = ["equipped", "measure", "prepare"]

# Options that change nothing but speed and memory, or that are about files alone.
_CHANGES_NOTHING = ("threads", "batch_size", "workdir", "providers")
_STATISTICS = "statistics.npz"


def prepare(
    model: ModelSource,
    calibration: Any,
    options: Options,
    progress: Progress,
    task: Mapping[str, Any] | None = None,
    crew: Crew | None = None,
) -> Prepared:
    """Read a model, find its layers, and observe them.

    Args:
        model: a path, the bytes of a model, or a ModelProto.
        calibration: sample inputs, as for `pipeline.prune`.
        options: of the run.
        progress: told how far it is.
        task: what else the run is about, plain data; with a work folder, another one is refused.
        crew: workers to share the work with, see `Prepared`.

    Raises:
        UsageError: an option does not fit the model, or statistics or a work folder belong to
            something else.
        SippError: the model or the data cannot be used.
    """
    found = equipped(model, calibration, options, progress, crew)
    about = found.about() if options.statistics or options.workdir else None
    if options.workdir and about is not None:
        found = replace(found, kept=_run_folder(found, about, task or {}))
    if options.statistics and about is not None:
        found = _with_statistics(found, about, calibration is not None)
    else:
        found = replace(found, measured=measure(found, about))
    if crew is not None:
        crew.learn(found.measured)
    return found


def equipped(
    model: ModelSource,
    calibration: Any,
    options: Options,
    progress: Progress,
    crew: Crew | None,
) -> Prepared:
    """Read a model and find its layers, and tell the crew, if there is one; see `prepare`."""
    found = replace(examine(model, calibration, options, progress), crew=crew)
    if found.makes_large_arrays:
        keep_freed_memory()
    if crew is not None:
        crew.take(found)
    return found


def measure(found: Prepared, about: About | None = None) -> list[Measured]:
    """Measure statistics, unless an interrupted run has left them.

    Args:
        found: the model.
        about: what they are measured on, if they are to be kept.

    Raises:
        SippError: the model or the data cannot be used.
    """
    method, store = found.options.method, TensorStore(KEPT_BYTES, found.options.workdir)
    kept = found.kept
    if kept is not None:
        before = kept.part(
            _STATISTICS, lambda path: StatisticsFile(path).measured(found.weights, method, store)
        )
        if before is not None:
            return before
    found.progress.stage("calibrating")
    measured = None
    if found.crew is not None:
        measured = found.crew.statistics(
            found.weights, len(found.observed), found.patches, found.progress, store
        )
    if measured is None:
        run = found.observation(found.observed)
        measured = measure_statistics(found.weights, method, run, store)
    if kept is not None and about is not None:
        kept.keep(_STATISTICS, lambda path: write_statistics(path, about, measured))
    return measured


def _with_statistics(found: Prepared, about: About, given: bool) -> Prepared:
    """Take statistics from a file.

    Args:
        found: the model, whose options name the file, and say what is done with them.
        about: what they would be measured on.
        given: whether samples were given.
    """
    options = found.options
    file = StatisticsFile(Path(options.statistics or ""))
    # What is made up would do to compare outputs on, not to refit layers.
    same_data = given or options.method == DEFAULT_METHOD or options.compensate != "none"
    file.refuse_other(about, options.method, same_data=same_data)
    store = TensorStore(KEPT_BYTES, options.workdir)
    measured = file.measured(found.weights, options.method, store)
    samples = found.samples
    if not same_data:
        told = (
            f"weights were chosen by the statistics in {file.path.name}; errors and fidelity were "
            f"measured on {samples.description}"
        )
        if samples.synthetic:
            told += ", which tells little of your data; give samples with --calib"
        samples = replace(
            samples,
            description=f"{file.path.name}: {file.about.source}",
            known=file.about.samples,
            warnings=(told,),
        )
    return replace(found, measured=measured, samples=samples, certified=file.about.observed)


def _run_folder(found: Prepared, about: About, task: Mapping[str, Any]) -> RunFolder:
    """Where the finished parts of this run are kept."""
    options = found.options
    assert options.workdir is not None
    said = {n: v for n, v in options.to_dict().items() if n not in _CHANGES_NOTHING}
    said["scheduler"] = bool(options.scheduler)  # which one changes nothing
    run = Fingerprint(about.model, about.data, {**said, **task}, __version__)
    return RunFolder(Path(options.workdir), run)
