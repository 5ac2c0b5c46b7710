"""From statistics to a pruned model: masks alone, or masks and a refit, in one or more rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.idle import Respent, Trial, spend_again, without
from onnx_sipp.options import Options
from onnx_sipp.progress import Progress
from onnx_sipp.pruning.candidates import CANDIDATES, Proposal, removal_costs
from onnx_sipp.pruning.error_budget import error_budget, relative_error
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.importance import LayerStatistics
from onnx_sipp.pruning.methods import REFIT_ALLOCATIONS, Decision, Goal, layer_counts
from onnx_sipp.pruning.mixing import Choice, choose, probe, settle
from onnx_sipp.pruning.unseen import decide_all, share_out
from onnx_sipp.sequential import Refitter
from onnx_sipp.weights import Weight, stored_values

__all__ = ["Outcome", "mask_and_refit", "mask_only"]

Costs = NDArray[np.float32]


@dataclass(frozen=True)
class Outcome:
    """A pruned model.

    Attributes:
        model: the lowered one, with the new weights and biases.
        decisions: per weight, the mask and the new values.
        choices: per weight, how the refit went; empty if there was none.
        plan: which budget won, "" if there was one only.
        plans: relative error of the outputs with each budget, on up to 16 batches, the held-out
            ones first.
        biases: by layer name, the stored constant that took up a change of the bias.
        respent: what was found on dead paths.
    """

    model: Lowered
    decisions: list[Decision]
    choices: list[Choice]
    plan: str = ""
    plans: Mapping[str, float] = field(default_factory=dict)
    biases: Mapping[str, str] = field(default_factory=dict)
    respent: Respent = field(default_factory=Respent)

    @property
    def changed(self) -> list[NDArray[np.floating]]:
        """Per weight, its new values."""
        return [decision.weight for decision in self.decisions]

    @property
    def shifts(self) -> list[NDArray[np.float64]]:
        """Per weight, what the bias gained, ``[group, out]``."""
        if self.choices:
            return [choice.bias for choice in self.choices]
        return [np.zeros(weight.shape[:2]) for weight in self.changed]


def mask_only(
    dense: Lowered,
    weights: Sequence[Weight],
    statistics: Sequence[LayerStatistics],
    goal: Goal,
    options: Options,
) -> Outcome:
    """Drop weights and leave the others as they are, or reweighted where they were sampled."""
    rng = np.random.default_rng(options.seed)
    decisions = decide_all(statistics, goal, options.method, options.allocation, rng)
    model = dense.copy()
    for weight, decision in zip(weights, decisions, strict=True):
        old = dense.read(weight.name)
        model.replace(weight.name, stored_values(weight, old, decision.weight, decision.kept))
    return Outcome(model, decisions, [])


def mask_and_refit(
    refitter: Refitter,
    statistics: Sequence[LayerStatistics],
    goal: Goal,
    options: Options,
    progress: Progress,
) -> Outcome:
    """Drop weights and refit the others, in rounds that keep keep^(r/R) of them.

    Args:
        refitter: of the dense model.
        statistics: per weight.
        goal: with ``keep``.
        options: of the run.
        progress: told how far it is.
    """
    assert goal.keep is not None
    evidence: Sequence[Evidence] = _first_evidence(refitter, options, progress)
    if options.frees_dead_paths:
        evidence = without(evidence, refitter.idle(refitter.dense), goal.keep)
    several = len(evidence) > 1
    compares = options.method == "mixed" and options.allocation == "auto" and several
    plans: dict[str, Sequence[Impact]] = {"": []}
    costs: list[Costs] | None = None
    if several and (compares or options.allocation == "impact"):
        plans[""] = _impacts(refitter, evidence, goal, options, progress)
    if compares:
        costs = [removal_costs(found, options.thread_count) for found in evidence]
        mild = [impact.mild() for impact in plans[""]]
        plans = {"error": [], "impact": plans[""], "mild-impact": mild}
    tried = {
        name: _in_rounds(refitter, evidence, statistics, goal, options, plan, progress, name, costs)
        for name, plan in plans.items()
    }
    errors = {name: refitter.output_error(trial.model) for name, trial in tried.items() if compares}
    plan = min(errors, key=errors.__getitem__, default="")
    trial, respent = tried[plan], Respent()
    if options.frees_dead_paths:
        progress.stage("spending again what dead paths took")
        trial, respent = spend_again(trial, goal.keep, refitter.idle, refitter.output_error)
    return Outcome(
        trial.model,
        [_decision(choice) for choice in trial.choices],
        list(trial.choices),
        plan=plan,
        plans={name: error**0.5 for name, error in errors.items()},
        biases={} if options.compensate == "none" else refitter.biases(trial.choices),
        respent=respent,
    )


def _decision(choice: Choice) -> Decision:
    return Decision(choice.kept, choice.weight, np.zeros((2, *choice.kept.shape[:2]), np.bool_))


def _first_evidence(refitter: Refitter, options: Options, progress: Progress) -> list[Evidence]:
    """Evidence from the dense model, if anything is decided before the pass in graph order."""
    weights = refitter.count
    budgeted = options.method == "mixed" and options.allocation in REFIT_ALLOCATIONS and weights > 1
    if options.compensate == "sequential" and not budgeted and not refitter.shares:
        return refitter.unmeasured()
    progress.stage("measuring layers")
    return refitter.evidence(progress)


def _in_rounds(
    refitter: Refitter,
    evidence: Sequence[Evidence],
    statistics: Sequence[LayerStatistics],
    goal: Goal,
    options: Options,
    impacts: Sequence[Impact],
    progress: Progress,
    plan: str = "",
    costs: Sequence[Costs] | None = None,
) -> Trial:
    """Prune and refit in rounds; returns the last."""
    assert goal.keep is not None
    total = sum(found.weight.size for found in evidence)
    importance = _Importance(impacts)
    if impacts:
        evidence = [
            replace(found, by_neuron=impact.by_neuron)
            for found, impact in zip(evidence, impacts, strict=True)
        ]
    for round_ in range(1, options.rounds + 1):
        progress.stage(_stage_name(plan, round_, options.rounds))
        share = (goal.keep / total) ** (round_ / options.rounds)
        keep = goal.keep if round_ == options.rounds else round(total * share)

        made = _Round(refitter, statistics, replace(goal, keep=keep), options, round_, importance,
                      progress)  # fmt: skip
        trial, evidence = made.run(evidence, costs if round_ == 1 else None)
        if options.frees_dead_paths and round_ < options.rounds:
            evidence = without(evidence, refitter.idle(trial.model), goal.keep)
    return trial


def _stage_name(plan: str, round_: int, rounds: int) -> str:
    budget = f", {plan} budget" if plan else ""
    return f"refitting{budget}, round {round_} of {rounds}" if rounds > 1 else f"refitting{budget}"


class _Round:
    """Passes over all layers that keep the same number of weights; see `_Chooser`."""

    def __init__(
        self,
        refitter: Refitter,
        statistics: Sequence[LayerStatistics],
        goal: Goal,
        options: Options,
        number: int,
        importance: _Importance,
        progress: Progress,
    ) -> None:
        self._refitter, self._statistics, self._goal = refitter, statistics, goal
        self._options, self._number, self._importance = options, number, importance
        self._progress = progress

    def again(self, start: Sequence[Evidence]) -> Trial:
        """Another pass, from other evidence."""
        trial, _ = self.run(start)
        return trial

    def run(
        self, start: Sequence[Evidence], costs: Sequence[Costs] | None = None
    ) -> tuple[Trial, Sequence[Evidence]]:
        """One pass from given evidence, and costs of removal if they are known.

        Returns:
            What came of it, and the evidence of it, with the new weights.
        """
        chooser = _Chooser(
            start,
            self._statistics,
            self._goal,
            self._options,
            self._number,
            self._importance,
            costs,
        )
        if self._options.compensate == "sequential":
            model, choices, after = self._refitter.refit(start, chooser, self._progress)
        else:
            model, choices = self._refitter.apply(start, chooser, self._progress)
            after = [replace(e, weight=c.weight) for e, c in zip(start, choices, strict=True)]
        return Trial(model, choices, start, self.again), after


class _Chooser:
    """Decides on one layer after the other within the budgets of a round."""

    def __init__(
        self,
        evidence: Sequence[Evidence],
        statistics: Sequence[LayerStatistics],
        goal: Goal,
        options: Options,
        round_: int,
        importance: _Importance,
        costs: Sequence[Costs] | None = None,
    ) -> None:
        self._options, self._round = options, round_
        self._masks: list[NDArray[np.bool_]] | None = None
        now = [_updated(s, e) for s, e in zip(statistics, evidence, strict=True)]
        if options.method != "mixed":
            rng = np.random.default_rng([options.seed, round_])
            made = decide_all(now, goal, options.method, options.allocation, rng)
            self._masks = [decision.kept for decision in made]
        elif len(evidence) == 1:
            self._counts = [goal.keep or 0]
        else:
            self._counts = _counts(evidence, now, costs, goal, options, importance)

    def __call__(self, index: int, evidence: Evidence) -> Choice:
        refits = self._options.compensate != "none"
        threads = self._options.thread_count
        if self._masks is not None:
            return settle(
                evidence,
                Proposal(self._masks[index]),
                self._options.method,
                threads=threads,
                refits=refits,
            )
        names = self._options.candidates or tuple(CANDIDATES)
        return choose(
            evidence,
            self._counts[index],
            self._options.seed + self._round,
            names=names if evidence.is_seen else ("magnitude",),
            threads=threads,
            refits=refits,
        )


@dataclass(frozen=True)
class Impact:
    """What pruning one layer alone does to the outputs of the model.

    Attributes:
        by_neuron: whether the same share of every neuron did less harm than the layer's best.
        share: of the layer's weights that were kept in the trial.
        error: relative squared error of the model's outputs.
        exponent: of the ratio of this error to the layer's own, as it counts in the budget.
    """

    by_neuron: bool
    share: float
    error: float
    exponent: float = 1.0

    def mild(self) -> Impact:
        """Half way to no impact at all, and the layer's best weights wherever they are."""
        return replace(self, by_neuron=False, exponent=0.5)


def _impacts(
    refitter: Refitter,
    evidence: Sequence[Evidence],
    goal: Goal,
    options: Options,
    progress: Progress,
) -> list[Impact]:
    """Prune every layer alone, in two ways, and look at the outputs of the model."""
    assert goal.keep is not None
    progress.stage("pruning single layers")
    share = max(goal.keep / sum(layer.weight.size for layer in evidence), 0.3)
    found = []
    for index, layer in enumerate(evidence):
        if not layer.is_seen:
            found.append(Impact(by_neuron=False, share=share, error=0.0))
            continue
        keep = min(round(share * layer.weight.size), int(np.count_nonzero(layer.weight)))
        ways = [
            (
                refitter.impact(index, probe(way, keep, threads=options.thread_count)),
                way.by_neuron,
            )
            for way in (replace(layer, by_neuron=True), layer)
        ]
        error, by_neuron = min(ways)
        found.append(Impact(by_neuron, share, error))
        progress.advance(1, len(evidence))
    return found


class _Importance:
    """What the error of each layer counts in the budget: as much as shows at the model's outputs.

    It is found once, on the evidence that a plan starts from: later, most costs are those of
    weights that have gone already.

    Args:
        impacts: per layer; if there are none, all layers count the same.
    """

    def __init__(self, impacts: Sequence[Impact]) -> None:
        self._impacts = impacts
        self._found: list[float] = []

    def of(
        self, costs: Sequence[Costs], powers: Sequence[float], places: Sequence[int]
    ) -> list[float] | None:
        """Factors of some layers.

        Args:
            costs: of removal, as they count at the layers' outputs.
            powers: of those outputs.
            places: of these layers among all.
        """
        if self._impacts and not self._found:
            impacts = [self._impacts[place] for place in places]
            for impact, cost, power in zip(impacts, costs, powers, strict=True):
                own = _log_loss(relative_error(cost, power, round(impact.share * cost.size)))
                self._found.append((_log_loss(impact.error) / max(own, 1e-9)) ** impact.exponent)
        return self._found or None


def _counts(
    evidence: Sequence[Evidence],
    statistics: Sequence[LayerStatistics],
    costs: Sequence[Costs] | None,
    goal: Goal,
    options: Options,
    importance: _Importance,
) -> list[int]:
    """How many weights every layer keeps. One that no sample reached keeps the share of all."""
    assert goal.keep is not None
    sizes = [found.weight.size for found in evidence]
    alive = [int(np.count_nonzero(found.weight)) for found in evidence]
    counts, left = share_out(sizes, alive, [found.is_seen for found in evidence], goal.keep)
    seen = [index for index, found in enumerate(evidence) if found.is_seen]
    rest = replace(goal, keep=left)
    if not seen:
        return [int(count) for count in counts]
    if options.allocation in REFIT_ALLOCATIONS:
        counts[seen] = _error_counts(
            [evidence[index] for index in seen],
            [costs[i] if costs else removal_costs(evidence[i], options.thread_count) for i in seen],
            rest,
            options,
            importance,
            seen,
        )
    else:
        counts[seen] = layer_counts([statistics[i] for i in seen], rest, options.allocation)
    return [int(count) for count in counts]


def _error_counts(
    evidence: Sequence[Evidence],
    own_costs: Sequence[Costs],
    goal: Goal,
    options: Options,
    importance: _Importance,
    places: Sequence[int],
) -> list[int]:
    """The budget by measured error; a layer counts as its error shows at the model's outputs."""
    assert goal.keep is not None
    costs = [found.at_output(own) for found, own in zip(evidence, own_costs, strict=True)]
    powers = [found.power for found in evidence]
    capacities = [int(np.count_nonzero(found.weight)) for found in evidence]
    factors = importance.of(costs, powers, places)
    return error_budget(costs, powers, capacities, goal.keep, factors, options.floor)


def _log_loss(error: float) -> float:
    return float(-np.log1p(-min(error, 0.95)))


def _updated(statistics: LayerStatistics, evidence: Evidence) -> LayerStatistics:
    """The statistics with the weights of this round; a sensitivity is |w| times what it weighs."""
    old = np.abs(statistics.weight)
    ratio = np.divide(np.abs(evidence.weight), old, out=np.zeros(old.shape), where=old > 0)
    mean = statistics.sensitivity_mean
    return replace(
        statistics,
        weight=evidence.weight,
        sensitivity_max=statistics.sensitivity_max * ratio,
        sensitivity_mean=None if mean is None else mean * ratio,
    )
