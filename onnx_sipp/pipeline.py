"""The way of the data on one page: read, find, observe, choose, rewrite, verify, report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from onnx_sipp.calibration.branches import lower_as_run
from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.fidelity import OutputFidelity, measure_fidelity
from onnx_sipp.calibration.observe import Observation
from onnx_sipp.calibration.samples import Chosen, Samples, open_samples
from onnx_sipp.channels.run import UnitGoal, cut_channels
from onnx_sipp.compensate import mask_and_refit, mask_only
from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.fitting import fitted
from onnx_sipp.graph.layers import Findings, find_layers
from onnx_sipp.graph.lowering import Lowered, lower
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.verdict import ensure_same_verdict
from onnx_sipp.measures import Measured, measure_errors, measure_statistics
from onnx_sipp.memory import excess, peak_memory
from onnx_sipp.options import DEFAULT_METHOD, Options
from onnx_sipp.outcome import Outcome
from onnx_sipp.packing.pack import PackResult, pack
from onnx_sipp.progress import Progress, Silent
from onnx_sipp.pruning.methods import Goal
from onnx_sipp.pruning.patterns import Channels
from onnx_sipp.report.assemble import assemble
from onnx_sipp.report.assemble_cut import assemble_cut
from onnx_sipp.report.result import Report
from onnx_sipp.sequential import Refitter
from onnx_sipp.store import TensorStore
from onnx_sipp.weights import Weight, group_weights
from onnx_sipp.workload import (
    certified_on,
    made_up_for,
    multiplications,
    patch_counts,
    plan_memory,
)

__all__ = ["ModelSource", "PruneResult", "prune"]

DEFAULT_MASK = "attention_mask"
# Of sensitivities, in memory; the others are in files.
KEPT_BYTES = 32 << 20

ModelSource = ModelProto | bytes | str | Path


class Masks(Mapping[str, NDArray[np.bool_]]):
    """Masks by layer name; each is made from the pruned model when it is looked up.

    Args:
        weights: that were pruned.
        pruned: the lowered model with the new weights.
    """

    def __init__(self, weights: Sequence[Weight], pruned: Lowered) -> None:
        self._found = {layer.name: (weight, layer) for weight in weights for layer in weight.layers}
        self._pruned = pruned

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        weight, layer = self._found[name]
        kept = weight.view.to_matrix(self._pruned.read(weight.name)) != 0
        return layer.view.to_stored(weight.as_seen_by(layer, kept))

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@dataclass(frozen=True)
class PruneResult:
    """A pruned model and what is known of it.

    Attributes:
        report: layers, certificate, fidelity, warnings.
        masks: per layer name, bool array in the shape of the weight that the layer multiplies (of
            the stored tensor, if no route re-arranges it): True where it is kept. None where
            channels were cut out: then nothing else is zero.
    """

    report: Report
    masks: Mapping[str, NDArray[np.bool_]]
    _model: Model
    _packed: PackResult | None = None

    @property
    def model(self) -> ModelProto:
        """The pruned model, external weights included; packed, if that was asked for."""
        return self._model.inlined() if self._packed is None else self._packed.model

    def html(self) -> str:
        """The report as a page of its own."""
        from onnx_sipp.report.document import html_page  # noqa: PLC0415 - only where it is read

        return html_page(self.report)

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
    started, peak = time.perf_counter(), peak_memory()
    chosen, listener = Options.checked(options), progress or Silent()
    dense = Model.load(model, [Path(library) for library in chosen.custom_ops])
    lowered = lower(dense, spare_biases=chosen.adds_biases)
    findings = _find(lowered, chosen)
    samples = _open(dense, calibration, chosen)
    if lowered.plan.conditions or lowered.plan.taps:
        listener.stage("observing branches")
        lowered = _lowered(dense, samples, chosen)
        findings = _find(lowered, chosen)
    execution, layers = _execution(samples, chosen), findings.layers
    patches = patch_counts(execution, lowered, layers, samples)
    work = multiplications(layers, patches)
    samples = made_up_for(samples, work, chosen.num_samples)
    memory = plan_memory(layers, patches, samples, chosen.memory_limit)
    execution = replace(execution, memory=memory)
    weights = group_weights(lowered, findings.layers, execution.memory.block, chosen.zero_pattern)
    mask = _mask_input(dense, chosen)
    kept = TensorStore(KEPT_BYTES, chosen.workdir)

    listener.stage("calibrating")
    mixed = chosen.method == DEFAULT_METHOD
    certified = certified_on(samples, work) if mixed else samples.calibration
    calibration_run = _observation(execution, lowered, certified, mask, chosen, listener)
    measured = measure_statistics(weights, chosen.method, calibration_run, kept)
    if isinstance(chosen.parsed_pattern, Channels):
        return _cut(
            lowered, findings, weights, measured, samples, execution, mask, chosen, listener,
            started,
        )  # fmt: skip
    outcome = _prune(lowered, weights, measured, samples, execution, mask, chosen, listener)

    listener.stage("measuring layers")
    held_out_run = _observation(execution, lowered, samples.held_out, mask, chosen, listener)
    shifts = [settled.shift for settled in outcome.settled]
    errors = measure_errors(weights, outcome.model, shifts, held_out_run, outcome.respent.neurons)
    listener.stage("comparing outputs")
    pruned = outcome.model.result()
    fidelity = _verify(dense, pruned, samples, execution, listener)

    notes = (*outcome.notes, *excess(chosen.memory_limit, peak))
    outcome = replace(outcome, notes=notes)
    report = assemble(
        lowered, findings, weights, measured, outcome, errors, fidelity, samples, len(certified),
        chosen, time.perf_counter() - started,
    )  # fmt: skip
    packed = pack(pruned, values=chosen.pack_values) if chosen.storage == "packed" else None
    report = replace(report, packing=packed.report if packed else None)
    return PruneResult(report, Masks(weights, outcome.model), pruned, packed)


def _find(model: Lowered, options: Options) -> Findings:
    findings = find_layers(
        model,
        options.exclude_nodes,
        options.exclude_op_types,
        include_tied=options.include_tied,
    )
    if not findings.layers:
        reasons = "".join(f"\n  {s.name} ({s.op_type}): {s.reason}" for s in findings.skipped[:10])
        raise SippError(
            "the model has no weight that can be pruned"
            + (
                f"; what multiplies a constant is left alone:{reasons}"
                if reasons
                else ": no node multiplies a constant that is stored in the file (a weight that "
                "comes in as an input of the graph is data)"
            )
        )
    pattern = options.zero_pattern
    return findings if pattern is None else fitted(model, findings, pattern)


def _open(model: Model, calibration: Any, options: Options) -> Samples:
    return open_samples(
        model,
        calibration,
        num_samples=options.num_samples,
        seed=options.seed,
        input_shapes=options.input_shapes,
        providers=options.providers,
        states=options.states,
        state_reset=options.state_reset,
        store=TensorStore(folder=options.workdir),
    )


def _lowered(model: Model, samples: Samples, options: Options) -> Lowered:
    return lower_as_run(
        model,
        samples.all_feeds(),
        threads=options.thread_count,
        providers=options.providers,
        spare_biases=options.adds_biases,
    )


def _execution(samples: Samples, options: Options) -> Execution:
    return Execution(
        samples.inputs,
        TensorStore(folder=options.workdir),
        options.thread_count,
        options.providers,
        options.batch_size,
    )


def _observation(
    execution: Execution,
    model: Lowered,
    feeds: Chosen,
    mask: str | None,
    options: Options,
    progress: Progress,
) -> Observation:
    return Observation(execution, model, feeds, options.thread_count, progress, mask)


def _mask_input(model: Model, options: Options) -> str | None:
    """The input that tells padding from data, if any.

    Raises:
        UsageError: the model has no input of the given name.
    """
    names = [value.name for value in model.proto.graph.input if value.name not in model.stored]
    if options.mask_input is None:
        return DEFAULT_MASK if DEFAULT_MASK in names else None
    if options.mask_input and options.mask_input not in names:
        raise UsageError(
            f"the model has no input {options.mask_input!r} to take as the mask; its inputs are "
            + ", ".join(names)
        )
    return options.mask_input or None


def _goal(weights: Sequence[Weight], options: Options) -> Goal:
    if options.sparsity is None:
        return Goal(epsilon=options.epsilon, delta=options.delta)
    total = sum(weight.units for weight in weights)
    return Goal(keep=total - round(options.sparsity * total), delta=options.delta)


def _prune(
    dense: Lowered,
    weights: Sequence[Weight],
    measured: Sequence[Measured],
    samples: Samples,
    execution: Execution,
    mask: str | None,
    options: Options,
    progress: Progress,
) -> Outcome:
    goal = _goal(weights, options)
    store = TensorStore(0, options.workdir)
    if options.compensate == "none" and options.method != "mixed":
        return mask_only(dense, weights, measured, goal, options, store)
    refitter = Refitter(dense, weights, measured, samples, execution, store, mask)
    count = len(samples.calibration) + len(samples.held_out)
    return mask_and_refit(refitter, weights, measured, count, goal, options, progress)


def _cut(
    dense: Lowered,
    findings: Findings,
    weights: Sequence[Weight],
    measured: Sequence[Measured],
    samples: Samples,
    execution: Execution,
    mask: str | None,
    options: Options,
    progress: Progress,
    started: float,
) -> PruneResult:
    """Cut channels out of the graph."""
    store = TensorStore(0, options.workdir)
    refitter = Refitter(dense, weights, measured, samples, execution, store, mask)
    goal = UnitGoal(
        macs=options.macs,
        parameters=None if options.sparsity is None else 1 - options.sparsity,
        latency=options.latency,
        align=options.align,
    )
    cut = cut_channels(dense, findings, weights, refitter, samples, execution, goal, progress)
    progress.stage("comparing outputs")
    original = dense.plan.original
    fidelity = _verify(original, cut.model, samples, execution, progress)
    report = assemble_cut(
        dense, findings, weights, cut, fidelity, samples, options, time.perf_counter() - started
    )
    return PruneResult(report, {}, cut.model)


def _verify(
    dense: Model, pruned: Model, samples: Samples, execution: Execution, progress: Progress
) -> list[OutputFidelity]:
    ensure_same_verdict(dense, pruned)
    return measure_fidelity(execution, dense, pruned, samples.held_out, progress, samples.states)
