"""The way of the data on one page: read, find, observe, choose, rewrite, verify, report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from onnx_sipp.allocator import freed_memory_given_back
from onnx_sipp.budgeting.passes import Passes
from onnx_sipp.checked import checked_options
from onnx_sipp.cluster.hiring import hired
from onnx_sipp.errors import UsageError
from onnx_sipp.files import write_together
from onnx_sipp.finish import finish
from onnx_sipp.graph.model import Model, ModelSource
from onnx_sipp.masks import Masks, refuse_names, write_masks
from onnx_sipp.measures import measure_errors
from onnx_sipp.memory import excess
from onnx_sipp.outcome import Outcome
from onnx_sipp.prepared import Prepared
from onnx_sipp.preparing import prepare
from onnx_sipp.progress import Progress, Silent
from onnx_sipp.pruning.methods import Goal
from onnx_sipp.pruning.patterns import Channels
from onnx_sipp.report.assemble import assemble
from onnx_sipp.report.result import Report
from onnx_sipp.threads import one_blas_thread

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from onnx_sipp.packing.pack import PackResult

__all__ = ["ModelSource", "PruneResult", "prune", "result_of"]


@dataclass(frozen=True, repr=False)
class PruneResult:
    """A pruned model and what is known of it.

    Attributes:
        report: layers, certificate, fidelity, warnings.
        masks: per layer name, bool array in the shape of the weight that the layer multiplies (of
            the stored tensor, if no route re-arranges it): True where it is kept; quantising may
            round small ones of those to zero. None where channels were cut out: then nothing else
            is zero.
    """

    report: Report
    masks: Mapping[str, NDArray[np.bool_]]
    _model: Model
    _packed: PackResult | None = None

    @property
    def model(self) -> ModelProto:
        """The pruned model, external weights included; quantised and packed, if asked for."""
        return self._model.inlined() if self._packed is None else self._packed.model

    def html(self) -> str:
        """The report as a page of its own."""
        from onnx_sipp.report.document import html_page  # noqa: PLC0415 - only where it is read

        return html_page(self.report)

    def __repr__(self) -> str:
        what = f"{self.report.sparsity:.2%} zeros" if self.report.cut is None else "channels cut"
        return f"<PruneResult of {self.report.model or 'a model'}: {what}>"

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """What the command prints."""
        from onnx_sipp.report.summary import report_parts  # noqa: PLC0415

        del console, options
        yield from report_parts(self.report)

    def _repr_html_(self) -> str:
        from onnx_sipp.report.document import html_cell  # noqa: PLC0415

        return html_cell(self.report)

    def save(self, path: str | Path) -> Report:
        """Write the model, whole or not at all; external data goes to ``<path>.data``.

        Returns:
            The report, with the size of what was written.

        Raises:
            UsageError: the path is an input, a folder, or in a missing or read-only folder.
            SippError: writing failed.
        """
        (self._packed or self._model).save(Path(path))
        return replace(self.report, bytes_after=Model.load(path).bytes_on_disk())

    def save_masks(self, path: str | Path) -> None:
        """Write the masks as ``.npz``, whole or not at all; see `masks`.

        Raises:
            UsageError: there are none, because channels were cut out.
            SippError: writing failed, or the name of a layer is too long.
        """
        if self.report.cut is not None:
            raise UsageError("channels were cut out of the graph, so there are no masks")
        refuse_names(self.masks)
        write_together([(Path(path), partial(write_masks, self.masks))])


def prune(
    model: ModelSource,
    calibration: Any = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> PruneResult:
    """Prune a trained model.

    Args:
        model: a path, the bytes of a model, or a ModelProto; it is never changed.
        calibration: sample inputs: the path of a ``.npz``, a ``.npy`` or a folder of them, an
            array, a dict of arrays, an iterable of feeds, an onnxruntime CalibrationDataReader.
            None takes ``test_data_set_*`` beside the model, or makes inputs up, with a warning.
        progress: listens to how far it is.
        **options: see `Options`.

    Raises:
        UsageError: an option or argument makes no sense.
        SippError: the model or the data cannot be used.
    """
    chosen = checked_options(options)
    with one_blas_thread(), freed_memory_given_back(), hired(chosen.scheduler) as crew:
        prepared = prepare(model, calibration, chosen, progress or Silent(), crew=crew)
        result = _pruned(prepared)
    prepared.finished()
    return result


def _pruned(prepared: Prepared) -> PruneResult:
    options = prepared.options
    if isinstance(options.parsed_pattern, Channels):
        return _cut(prepared)
    if options.goals:
        from onnx_sipp.searching.search import search  # noqa: PLC0415 - few runs need it

        found = search(prepared)
        result = result_of(prepared, found.outcome)
        return replace(result, report=replace(result.report, search=found.report))
    goal = _goal(prepared)
    return result_of(prepared, Passes(prepared, goal).careful(goal))


def result_of(prepared: Prepared, outcome: Outcome) -> PruneResult:
    """Measure what became of a model, and write it down.

    Args:
        prepared: the model before.
        outcome: the model after, and per weight what was decided.

    Raises:
        SippError: the result cannot be used.
    """
    weights, samples, options = prepared.weights, prepared.samples, prepared.options
    prepared.progress.stage("measuring layers")
    errors = measure_errors(
        weights,
        outcome.model,
        [settled.shift for settled in outcome.settled],
        prepared.observation(samples.held_out),
        outcome.respent.neurons,
    )
    pruned = outcome.model.result()
    fidelity = prepared.fidelity(pruned)
    notes = (*outcome.notes, *excess(options.memory_limit, prepared.peak))
    report = assemble(
        prepared.lowered, prepared.findings, weights, prepared.measured,
        replace(outcome, notes=notes), errors, fidelity, samples, prepared.certified, options,
        time.perf_counter() - prepared.started,
    )  # fmt: skip
    finished = finish(prepared, pruned, report)
    masks = Masks(weights, outcome.model)
    outcome.model.sites.let_go()
    return PruneResult(finished.report, masks, finished.model, finished.packed)


def _goal(prepared: Prepared) -> Goal:
    options = prepared.options
    if options.masks is not None:
        return Goal(keep=prepared.units)  # masks say which of them stay
    if options.sparsity is None:
        return Goal(epsilon=options.epsilon, delta=options.delta)
    return prepared.goal(options.sparsity)


def _cut(prepared: Prepared) -> PruneResult:
    """Cut channels out of the graph."""
    from onnx_sipp.channels.run import UnitGoal, cut_channels  # noqa: PLC0415 - few runs need it
    from onnx_sipp.report.assemble_cut import assemble_cut  # noqa: PLC0415

    options, samples = prepared.options, prepared.samples
    goal = UnitGoal(
        macs=options.macs,
        parameters=None if options.sparsity is None else 1 - options.sparsity,
        latency=options.latency,
        align=options.align,
    )
    dense, findings, weights = prepared.lowered, prepared.findings, prepared.weights
    cut = cut_channels(
        dense, findings, weights, prepared.refitter(), samples, prepared.execution, goal,
        prepared.progress,
    )  # fmt: skip
    fidelity = prepared.fidelity(cut.model)
    seconds = time.perf_counter() - prepared.started
    report = assemble_cut(dense, findings, weights, cut, fidelity, samples, options, seconds)
    finished = finish(prepared, cut.model, report)
    return PruneResult(finished.report, {}, finished.model, finished.packed)
