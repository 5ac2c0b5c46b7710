"""Examine a model: find its layers, and how it is run; nothing is measured yet."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from onnx_sipp.calibration.branches import lower_as_run
from onnx_sipp.calibration.execution import Execution, Tensors
from onnx_sipp.calibration.samples import Samples, open_samples
from onnx_sipp.choices import DEFAULT_METHOD
from onnx_sipp.config.applying import WeightRules, names_left_out, rules_of
from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.fitting import fitted
from onnx_sipp.given_masks import GivenMasks
from onnx_sipp.graph.layers import Findings, find_layers
from onnx_sipp.graph.lowering import Lowered, lower
from onnx_sipp.graph.model import Model, ModelSource
from onnx_sipp.memory import KEPT_BYTES, peak_memory
from onnx_sipp.options import Options
from onnx_sipp.prepared import Prepared
from onnx_sipp.progress import Progress
from onnx_sipp.quantizing.refusal import refuse_quantization
from onnx_sipp.statistics.sensitivity import load_early
from onnx_sipp.store import TensorStore
from onnx_sipp.weight_groups import group_weights
from onnx_sipp.weights import Weight
from onnx_sipp.workload import (
    certified_on,
    made_up_for,
    multiplications,
    patch_counts,
    plan_memory,
)

__all__ = ["examine", "found_in"]

DEFAULT_MASK = "attention_mask"


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
    lowered, findings, samples = _as_run(dense, open_, options, progress)
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
    rules = _rules(lowered, weights, masks, options)
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


def _as_run(
    dense: Model, open_: Callable[[], Samples], options: Options, progress: Progress
) -> tuple[Lowered, Findings, Samples]:
    """The lowered model and its layers, with the branches that the samples take."""
    lowered = lower(dense, spare_biases=options.adds_biases)
    findings = _find(lowered, options)
    samples = open_()
    if lowered.plan.conditions or lowered.plan.taps:
        progress.stage("observing branches")
        lowered = _lowered(dense, samples, options)
        findings = _find(lowered, options)
    return lowered, findings, samples


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


def _rules(
    model: Lowered, weights: Sequence[Weight], masks: GivenMasks | None, options: Options
) -> WeightRules:
    """What holds for single weights, the masks of the user included."""
    rules = rules_of(model, weights, options.rules)
    if masks is None:
        return rules
    store = TensorStore(KEPT_BYTES, options.workdir)
    return replace(rules, masks=masks.placed(weights, store))


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
