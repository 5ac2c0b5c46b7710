"""Cut channels, hidden units and heads out of a model, and refit what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.batching import joined
from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.samples import Samples
from onnx_sipp.calibration.specs import Feed
from onnx_sipp.channels.checking import difference, found_wrong
from onnx_sipp.channels.coupling import coupled
from onnx_sipp.channels.latency import latency_ratio
from onnx_sipp.channels.plan import Coupling
from onnx_sipp.channels.sizes import Sizes
from onnx_sipp.channels.surgery import cut_out
from onnx_sipp.channels.survey import survey
from onnx_sipp.channels.target import Target, UnitGoal
from onnx_sipp.channels.trials import Trial, Trials
from onnx_sipp.channels.units import Ids
from onnx_sipp.errors import SippError
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.kinds import node_labels
from onnx_sipp.graph.layers import Findings
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.model import Model
from onnx_sipp.progress import Progress
from onnx_sipp.refitting.refitter import Refitter
from onnx_sipp.weights import Weight

__all__ = ["Cut", "UnitGoal", "couple", "cut_channels"]

# Samples on which a cut model is compared with the masked one.
_CHECKED = 2
# Samples at once that a model is timed on.
_TIMED = 16


@dataclass(frozen=True)
class Cut:
    """A model without some of its units.

    Attributes:
        model: that.
        coupling: groups of the dense model.
        counts: per group, how many units stay.
        ways: by group, which way chose them.
        macs: multiply-adds for one sample, before and after.
        parameters: elements of all parameters of the main graph, before and after.
        plan: which budget won.
        plans: relative error of the outputs with each, on up to 16 batches.
        latency: measured share of the dense model's time, None if it was not asked for.
    """

    model: Model
    coupling: Coupling
    counts: NDArray[np.int64]
    ways: Mapping[int, str]
    macs: tuple[float, float]
    parameters: tuple[float, float]
    plan: str
    plans: Mapping[str, float] = field(default_factory=dict)
    latency: float | None = None


def couple(
    lowered: Lowered,
    findings: Findings,
    weights: Sequence[Weight],
    execution: Execution,
    feeds: Sequence[Feed],
    align: int | None,
) -> Coupling:
    """The groups of a model; what does not stand a trial is barred.

    Args:
        lowered: the model.
        findings: its layers.
        weights: of these.
        execution: how it is run.
        feeds: one sample for the shapes, and more for the trial.
        align: see `Group.counts`.

    Raises:
        SippError: the model cannot be run.
    """
    original = lowered.plan.original
    sizes = Sizes.of(original, execution, feeds[0])
    trace = coupled(original, Flow(original), sizes.shapes, sizes.values)
    names = node_labels(original.proto.graph.node)
    found = Coupling.of(lowered, trace, findings, weights, names)
    few = "they are too few for the grid of counts (see --align)"
    found = found.barred({n: few for n in found.free if len(found.groups[n].counts(align)) == 1})
    return found.barred(found_wrong(lowered, weights, found, align, execution, feeds))


def cut_channels(
    lowered: Lowered,
    findings: Findings,
    weights: Sequence[Weight],
    refitter: Refitter,
    samples: Samples,
    execution: Execution,
    goal: UnitGoal,
    progress: Progress,
) -> Cut:
    """Choose units, refit the weights that are left, cut.

    Args:
        lowered: the dense model.
        findings: its layers.
        weights: of these.
        refitter: of the model.
        samples: calibration and held-out samples.
        execution: how models are run.
        goal: how far to go.
        progress: told how far it is.

    Raises:
        SippError: nothing can be cut, or not as much as is asked for.
    """
    progress.stage("finding coupled channels")
    feeds = list(islice(samples.calibration, _CHECKED))
    threads = execution.threads or 1
    coupling = couple(lowered, findings, weights, execution, feeds, goal.align)
    free = coupling.free
    if not free:
        raise SippError("no channels can be cut out of this model:" + coupling.reasons())
    progress.stage("measuring groups of channels")
    found = survey(refitter, coupling, goal.align, threads, progress)
    target = Target(goal, coupling, free, execution.providers)
    if goal.latency is not None:
        progress.stage("measuring latency")
        timed = _timed_on(lowered.plan.original, samples, execution)
        target.measure(lowered.plan.original, found, timed, threads)
    trials = Trials(refitter, coupling, found, free, target, threads, progress)
    best, plans = trials.best()
    cut = _cut(lowered, coupling, best, execution, feeds)
    if goal.latency is not None:
        spent = latency_ratio(
            lowered.plan.original, cut.model, timed, threads, providers=execution.providers
        )
        cut = replace(cut, latency=spent)
    return replace(cut, plans=plans)


def _timed_on(model: Model, samples: Samples, execution: Execution) -> Feed:
    """Some samples at once, if the model takes more than one."""
    outputs = [value.name for value in model.proto.graph.output]
    batching = execution.plan(model, [outputs], samples.calibration)
    some = islice(samples.calibration, _TIMED)
    _, feed = next(joined(some, batching, samples.inputs))
    return feed


def _cut(
    lowered: Lowered,
    coupling: Coupling,
    best: Trial,
    execution: Execution,
    feeds: Sequence[Feed],
) -> Cut:
    model = _without(lowered, coupling, best, execution, feeds[0])
    wrong = difference(execution, best.model, model, feeds)
    if wrong:
        raise SippError(
            f"the cut model is damaged, nothing was written; please report this: {wrong}"
        )
    volumes, gone = coupling.volumes, best.decider.gone
    full, counts = coupling.counts({}), coupling.counts(gone)
    return Cut(
        model=model,
        coupling=coupling,
        counts=counts.astype(np.int64),
        ways=best.decider.ways,
        macs=(volumes.macs(full), volumes.macs(counts)),
        parameters=(volumes.parameters(full), volumes.parameters(counts)),
        plan=best.plan,
    )


def _without(
    lowered: Lowered, coupling: Coupling, best: Trial, execution: Execution, feed: Feed
) -> Model:
    """The refitted model, which may have biases that the dense one has not, without units."""
    whole, gone = best.model.result(), coupling.numbers(best.decider.gone)
    sizes = Sizes.of(whole, execution, feed)
    trace = coupled(whole, Flow(whole), sizes.shapes, sizes.values)
    old = coupling.trace
    now: list[Ids] = [np.zeros(0, np.int64)]
    for name in lowered.plan.original.stored:
        pairs = zip(old.axes.get(name, []), trace.axes.get(name, []), strict=True)
        now += [new[np.isin(old.units.roots(before), gone)] for before, new in pairs]
    numbers = np.unique(trace.units.roots(np.concatenate(now)))
    return Model(cut_out(whole, trace, numbers), whole.path, whole.libraries)
