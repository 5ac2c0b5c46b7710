"""A model that has been read and calibrated: what pruning it, at any sparsity, starts from."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from onnx import ModelProto

from onnx_sipp.budgeting.workers import Workers
from onnx_sipp.calibration.branches import lower_as_run
from onnx_sipp.calibration.execution import Execution, Tensors
from onnx_sipp.calibration.fidelity import OutputFidelity, measure_fidelity
from onnx_sipp.calibration.observe import Observation
from onnx_sipp.calibration.runner import is_large
from onnx_sipp.calibration.samples import Chosen, Samples, open_samples
from onnx_sipp.choices import DEFAULT_METHOD
from onnx_sipp.config.applying import WeightRules, names_left_out, rules_of
from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.fitting import fitted
from onnx_sipp.given_masks import GivenMasks
from onnx_sipp.graph.layers import Findings, find_layers
from onnx_sipp.graph.lowering import Lowered, lower
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.verdict import ensure_same_verdict
from onnx_sipp.keeping.fingerprint import data_digest, model_digest
from onnx_sipp.keeping.folder import RunFolder
from onnx_sipp.keeping.statistics import About
from onnx_sipp.measures import Measured
from onnx_sipp.memory import DEFAULT_LIMIT, peak_memory
from onnx_sipp.options import Options
from onnx_sipp.progress import Progress
from onnx_sipp.pruning.methods import Goal
from onnx_sipp.quantizing.refusal import refuse_quantization
from onnx_sipp.refitting.refitter import Refitter
from onnx_sipp.statistics.sensitivity import load_early
from onnx_sipp.store import TensorStore
from onnx_sipp.weights import Weight, group_weights
from onnx_sipp.workload import (
    certified_on,
    made_up_for,
    multiplications,
    patch_counts,
    plan_memory,
)

__all__ = ["KEPT_BYTES", "ModelSource", "Prepared", "examine", "found_in"]

DEFAULT_MASK = "attention_mask"
# Of sensitivities, in memory; the others are in files.
KEPT_BYTES = 32 << 20
# Weights of a layer, worked on together, whose arrays are large.
_WIDE = 1 << 21

ModelSource = ModelProto | bytes | str | Path


@dataclass(frozen=True)
class Prepared:
    """A calibrated model.

    Attributes:
        dense: as it was read.
        lowered: the same, lowered.
        findings: its layers and skipped nodes.
        weights: what can be pruned.
        measured: per weight, what calibration told.
        samples: the data.
        observed: those that statistics are measured on.
        patches: that a weight meets in a sample, on average.
        certified: how many samples the sensitivities were measured on.
        execution: how models are run.
        mask: the input that tells padding from data, if any.
        rules: for single weights.
        options: of the run.
        progress: told how far it is.
        started: when it began, on the performance counter.
        peak: the most memory that the process had had before, in bytes.
        kept: where finished parts of the run are kept, None if they are not.
        crew: workers that measure and make passes, None if this process does all.
    """

    dense: Model
    lowered: Lowered
    findings: Findings
    weights: Sequence[Weight]
    measured: Sequence[Measured]
    samples: Samples
    observed: Chosen
    patches: float
    certified: int
    execution: Execution
    mask: str | None
    rules: WeightRules
    options: Options
    progress: Progress
    started: float
    peak: int
    kept: RunFolder | None = None
    crew: Workers | None = None

    def finished(self) -> None:
        """Forget what was kept to go on from: the run is done."""
        for model in (self.dense, self.lowered):
            model.sites.let_go()
        if self.kept is not None:
            self.kept.forget()

    def about(self) -> About:
        """What statistics are measured on."""
        dense, samples = self.dense, self.samples
        return About(
            model=model_digest(dense),
            model_name="" if dense.path is None else dense.path.name,
            data=data_digest(samples.all_feeds()),
            source=samples.description,
            samples=len(samples.calibration),
            held_out=len(samples.held_out),
            observed=len(self.observed),
            mask=self.mask,
        )

    @property
    def units(self) -> int:
        """How many parts of the weights stay or go by themselves."""
        return sum(weight.units for weight in self.weights)

    @property
    def makes_large_arrays(self) -> bool:
        """Whether layers are wide, and memory is not short, by the limit or for a large model.

        With small arrays, among many samples, kept memory would only come to pieces.
        """
        if is_large(self.dense) or self.options.memory_limit < DEFAULT_LIMIT:
            return False
        return max(b.view.size for weight in self.weights for b in weight.blocks) >= _WIDE

    @property
    def reachable(self) -> tuple[int, int]:
        """The fewest and the most units that may stay, as rules fix those of some layers."""
        sizes = [weight.units for weight in self.weights]
        fixed = self.rules.fixed(sizes)
        least = sum(fixed.values())
        return least, least + sum(size for i, size in enumerate(sizes) if i not in fixed)

    def goal(self, sparsity: float) -> Goal:
        """What is to be kept at a sparsity, in ``units``.

        Raises:
            UsageError: rules fix so much that it cannot be met.
        """
        keep = self.units - round(sparsity * self.units)
        least, most = self.reachable
        # People round what they are told.
        near = 1e-4 * self.units + 1
        keep = min(max(keep, least), most) if least - near <= keep <= most + near else keep
        if not least <= keep <= most:
            allowed = sorted(1 - count / self.units for count in (least, most))
            raise UsageError(
                f"a sparsity of {sparsity:.2%} cannot be met: with the sparsities that rules give "
                f"to single layers, it can be between {allowed[0]:.4%} and {allowed[1]:.4%}"
            )
        return Goal(keep=keep, delta=self.options.delta)

    def observation(self, feeds: Chosen) -> Observation:
        """How the inputs of the layers are observed on some samples."""
        return _observation(
            self.execution, self.lowered, feeds, self.mask, self.options, self.progress
        )

    def refitter(self) -> Refitter:
        """What refits layers in graph order."""
        store = TensorStore(0, self.options.workdir)
        return Refitter(
            self.lowered, self.weights, self.measured, self.samples, self.execution, store,
            self.mask,
        )  # fmt: skip

    def fidelity(self, pruned: Model) -> list[OutputFidelity]:
        """Check a pruned model, and compare its outputs on held-out samples.

        Raises:
            SippError: what the checker says of it differs from what it says of the dense one.
        """
        ensure_same_verdict(self.dense, pruned)
        return self.compared(pruned)

    def compared(self, changed: Model, before: Model | None = None) -> list[OutputFidelity]:
        """Compare outputs on held-out samples.

        Args:
            changed: a model with the same outputs.
            before: what it is compared with, None for the dense model.
        """
        self.progress.stage("comparing outputs")
        return measure_fidelity(
            self.execution, before or self.dense, changed, self.samples.held_out, self.progress,
            self.samples.states,
        )  # fmt: skip


def examine(model: ModelSource, calibration: Any, options: Options, progress: Progress) -> Prepared:
    """Read a model and find its layers; nothing is measured yet.

    See `preparing.prepare`.
    """
    started, peak = time.perf_counter(), peak_memory()
    dense = Model.load(model, [Path(library) for library in options.custom_ops])
    if options.quantize:
        refuse_quantization(dense)
    if not (options.scheduler or options.statistics):  # else others measure as a rule, or have
        load_early()
    found = found_in(dense, partial(_open, dense, calibration, options), options, progress)
    return replace(found, started=started, peak=peak)


def found_in(
    dense: Model,
    open_: Callable[[], Samples],
    options: Options,
    progress: Progress,
    known: Tensors | None = None,
) -> Prepared:
    """Find the layers of a model, and how it is run; nothing is measured yet.

    Args:
        dense: the model.
        open_: opens the samples, once it is known that there is something to prune.
        options: of the run.
        progress: told how far it is.
        known: what others have found out of the same model's tensors.
    """
    started, peak = time.perf_counter(), peak_memory()
    lowered = lower(dense, spare_biases=options.adds_biases)
    findings = _find(lowered, options)
    samples = open_()
    if lowered.plan.conditions or lowered.plan.taps:
        progress.stage("observing branches")
        lowered = _lowered(dense, samples, options)
        findings = _find(lowered, options)
    masks = None if options.masks is None else GivenMasks(options.masks)
    if masks is not None:
        findings = masks.fitted(lowered, findings)
    execution, layers = _execution(samples, options, known or Tensors()), findings.layers
    patches = patch_counts(execution, lowered, layers, samples)
    work = multiplications(layers, patches)
    samples = made_up_for(samples, work, options.num_samples)
    memory = plan_memory(layers, patches, samples, options.memory_limit)
    execution = replace(execution, memory=memory)
    weights = group_weights(lowered, layers, execution.memory.block, options.zero_pattern)
    rules = rules_of(lowered, weights, options.rules)
    if masks is not None:
        store = TensorStore(KEPT_BYTES, options.workdir)
        rules = replace(rules, masks=masks.placed(weights, store))
    mixed = options.method == DEFAULT_METHOD
    observed = certified_on(samples, work) if mixed else samples.calibration
    return Prepared(
        dense=dense,
        lowered=lowered,
        findings=findings,
        weights=weights,
        measured=(),
        samples=samples,
        observed=observed,
        patches=work / sum(layer.view.size for layer in layers),
        certified=len(observed),
        execution=execution,
        mask=_mask_input(dense, options),
        rules=rules,
        options=options,
        progress=progress,
        started=started,
        peak=peak,
    )


def _find(model: Lowered, options: Options) -> Findings:
    find = partial(
        find_layers,
        model,
        exclude_op_types=options.exclude_op_types,
        include_nodes=options.include_nodes,
        include_op_types=options.include_op_types,
        include_tied=options.include_tied,
    )
    findings = find(exclude_nodes=options.exclude_nodes)
    if names := names_left_out(model, findings, options.rules):
        findings = find(exclude_nodes=[*options.exclude_nodes, *map(glob.escape, names)])
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


def _execution(samples: Samples, options: Options, known: Tensors) -> Execution:
    return Execution(
        samples.inputs,
        TensorStore(folder=options.workdir),
        options.thread_count,
        options.providers,
        options.batch_size,
        known=known,
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
