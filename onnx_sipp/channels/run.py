"""Cut channels, hidden units and heads out of a model, and refit what is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.samples import Samples
from onnx_sipp.calibration.specs import Feed
from onnx_sipp.channels.checking import difference, found_wrong
from onnx_sipp.channels.coupling import coupled
from onnx_sipp.channels.decider import UnitDecider
from onnx_sipp.channels.latency import latency_ratio
from onnx_sipp.channels.plan import Coupling
from onnx_sipp.channels.sizes import Sizes
from onnx_sipp.channels.surgery import cut_out
from onnx_sipp.channels.survey import Found, survey
from onnx_sipp.channels.units import Ids
from onnx_sipp.errors import SippError
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.kinds import node_labels
from onnx_sipp.graph.layers import Findings
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.model import Model
from onnx_sipp.progress import Progress
from onnx_sipp.pruning.unit_budget import Curve, Share, even_counts, unit_budget
from onnx_sipp.sequential import Refitter
from onnx_sipp.weights import Weight

__all__ = ["Cut", "UnitGoal", "couple", "cut_channels"]

# Samples on which a cut model is compared with the masked one.
_CHECKED = 2
# Trials that the search for a latency takes.
_TRIALS = 7


@dataclass(frozen=True)
class UnitGoal:
    """What is asked for; one of the three.

    Attributes:
        macs: share of the multiply-adds that may stay.
        parameters: share of the parameters that may stay.
        latency: share of the time that a run may take, in onnxruntime.
        align: see `Group.counts`.
    """

    macs: float | None = None
    parameters: float | None = None
    latency: float | None = None
    align: int | None = None


@dataclass(frozen=True)
class Cut:
    """A model without some of its units.

    Attributes:
        model: that.
        coupling: groups of the dense model.
        counts: per group, how many units stay.
        ways: by group, which way chose them.
        macs: multiply-adds for one sample, before and after.
        parameters: elements of all constants of the main graph, before and after.
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
    coupling = couple(lowered, findings, weights, execution, feeds, goal.align)
    run = _Run(lowered, weights, refitter, execution, coupling, goal, progress, feeds)
    return run.cut()


class _Run:
    def __init__(
        self,
        lowered: Lowered,
        weights: Sequence[Weight],
        refitter: Refitter,
        execution: Execution,
        coupling: Coupling,
        goal: UnitGoal,
        progress: Progress,
        feeds: Sequence[Feed],
    ) -> None:
        self._lowered, self._weights, self._refitter = lowered, weights, refitter
        self._execution, self._coupling, self._goal = execution, coupling, goal
        self._progress, self._feeds = progress, feeds
        self._threads = execution.threads or 1
        self._free = [n for n in coupling.free if len(coupling.groups[n].counts(goal.align)) > 1]
        self._full = np.array([group.count for group in coupling.groups], np.float64)
        self._found: dict[int, Found] = {}

    def cut(self) -> Cut:
        """Do all of it."""
        if not self._free:
            raise SippError("no channels can be cut out of this model:" + self._reasons())
        self._progress.stage("measuring groups of channels")
        self._found = survey(
            self._refitter, self._coupling, self._goal.align, self._threads, self._progress
        )
        share, limit, latency = self._share()
        tried = []
        for name, counts in self._plans(share, limit).items():
            self._progress.stage(f"refitting, {name} budget")
            decider = self._decider(dict(zip(self._free, counts, strict=True)))
            refitted = self._refitter.refit(decider, self._progress, sequential=True)
            tried.append((self._refitter.output_error(refitted.model), name, decider, refitted))
        error, plan, decider, refitted = min(tried, key=lambda item: item[0])
        plans = {name: other**0.5 for other, name, _, _ in tried}
        if self._refitter.has_cuts:
            self._progress.stage("refitting what the next layers let through")
            again = self._decider({}, decider.gone)
            better = self._refitter.refit(again, self._progress, sequential=True, rectify=True)
            if self._refitter.output_error(better.model) < error:
                refitted = better
        return self._result(refitted.model, decider, plan, plans, latency)

    def _decider(
        self, counts: Mapping[int, int], gone: Mapping[int, NDArray[np.int64]] | None = None
    ) -> UnitDecider:
        return UnitDecider(self._coupling, self._found, counts, self._threads, gone)

    def _plans(self, share: Share, limit: float) -> dict[str, list[int]]:
        """Counts per free group, by how the budget was found."""
        ways: Mapping[str, Callable[[], list[int] | None]] = {
            "impact": lambda: unit_budget(self._curves(measured=True), share, limit),
            "inner": lambda: unit_budget(self._inner(), share, limit),
            "error": lambda: unit_budget(self._curves(measured=False), share, limit),
            "even": lambda: even_counts(self._curves(measured=True), share, limit),
        }
        found: dict[str, list[int]] = {}
        for name, way in ways.items():
            counts = way()
            if counts is not None and counts not in found.values():
                found[name] = counts
        if not found:
            least = share(np.array([c.counts[-1] for c in self._curves(measured=True)], float))
            raise SippError(
                f"not so much can be cut: with the fewest channels in every group {least:.3f} of "
                f"the model are left, and {limit:.3f} were asked for; what stays:" + self._reasons()
            )
        return found

    def _curves(self, *, measured: bool) -> list[Curve]:
        found = [self._found[number] for number in self._free]
        return [one.measured if measured else one.local for one in found]

    def _inner(self) -> list[Curve]:
        """The same with all units of groups that several layers read: they run through many."""
        found = zip(self._free, self._curves(measured=True), strict=True)
        return [
            curve if len(self._coupling.readers[number]) == 1
            else Curve(curve.counts[:1], curve.errors[:1])
            for number, curve in found
        ]  # fmt: skip

    def _reasons(self) -> str:
        kept = [group for group in self._coupling.groups if group.reason][:10]
        return "".join(f"\n  {group.name}: {group.reason}" for group in kept)

    def _all_counts(self, counts: Sequence[float]) -> NDArray[np.float64]:
        """From counts of the free groups to those of all."""
        result = self._full.copy()
        result[self._free] = counts
        return result

    def _share(self) -> tuple[Share, float, float | None]:
        """The volume that counts, the largest share, and the latency where one is asked for."""
        volumes, goal = self._coupling.volumes, self._goal
        if goal.parameters is not None:
            whole = volumes.parameters(self._full)
            return (
                lambda counts: volumes.parameters(self._all_counts(list(counts))) / whole,
                goal.parameters,
                None,
            )
        whole = volumes.macs(self._full)

        def share(counts: NDArray[np.float64]) -> float:
            return volumes.macs(self._all_counts(list(counts))) / whole

        if goal.macs is not None:
            return share, goal.macs, None
        assert goal.latency is not None
        limit, found = self._macs_for(goal.latency, share)
        return share, limit, found

    def _macs_for(self, latency: float, share: Share) -> tuple[float, float]:
        """The share of multiply-adds that takes so much of the dense model's time."""
        self._progress.stage("measuring latency")
        curves = self._curves(measured=True)
        low = share(np.array([curve.counts[-1] for curve in curves], np.float64))
        high, found = 1.0, None
        seen: dict[tuple[int, ...], float] = {}
        fastest = 1.0
        for _ in range(_TRIALS):
            limit = (low + high) / 2
            counts = unit_budget(curves, share, limit)
            if counts is None:
                low = limit
                continue
            key = tuple(counts)
            if key not in seen:
                seen[key] = self._time(counts)
            fastest = min(fastest, seen[key])
            if seen[key] <= latency:
                low, found = limit, (limit, seen[key])
            else:
                high = limit
        if found is None:
            raise SippError(
                f"no cut of this model takes {latency:.3f} of its time; the fastest that was tried "
                f"takes {fastest:.3f}"
            )
        return found

    def _time(self, counts: Sequence[int]) -> float:
        gone = {
            number: np.setdiff1d(np.arange(self._coupling.groups[number].count),
                                 self._found[number].orders["removal"].kept(count))
            for number, count in zip(self._free, counts, strict=True)
        }  # fmt: skip
        original = self._lowered.plan.original
        proto = cut_out(original, self._coupling.trace, self._coupling.numbers(gone))
        cut = Model(proto, original.path, original.libraries)
        return latency_ratio(original, cut, self._feeds[0], self._threads)

    def _result(
        self,
        masked: Lowered,
        decider: UnitDecider,
        plan: str,
        plans: Mapping[str, float],
        latency: float | None,
    ) -> Cut:
        coupling = self._coupling
        whole = masked.result()
        model = self._without(whole, coupling.numbers(decider.gone))
        wrong = difference(self._execution, masked, model, self._feeds)
        if wrong:
            raise SippError(
                f"the cut model is damaged, nothing was written; please report this: {wrong}"
            )
        counts = coupling.counts(decider.gone)
        volumes = coupling.volumes
        if latency is not None:
            latency = latency_ratio(
                self._lowered.plan.original, model, self._feeds[0], self._threads
            )
        return Cut(
            model=model,
            coupling=coupling,
            counts=counts.astype(np.int64),
            ways=decider.ways,
            macs=(volumes.macs(self._full), volumes.macs(counts)),
            parameters=(volumes.parameters(self._full), volumes.parameters(counts)),
            plan=plan,
            plans=plans,
            latency=latency,
        )

    def _without(self, whole: Model, gone: Ids) -> Model:
        """The refitted model, which may have biases that the dense one has not, without units."""
        sizes = Sizes.of(whole, self._execution, self._feeds[0])
        trace = coupled(whole, Flow(whole), sizes.shapes, sizes.values)
        old = self._coupling.trace
        now: list[Ids] = [np.zeros(0, np.int64)]
        for name in self._lowered.plan.original.stored:
            pairs = zip(old.axes.get(name, []), trace.axes.get(name, []), strict=False)
            now += [new[np.isin(old.units.roots(before), gone)] for before, new in pairs]
        numbers = np.unique(trace.units.roots(np.concatenate(now)))
        return Model(cut_out(whole, trace, numbers), whole.path, whole.libraries)
