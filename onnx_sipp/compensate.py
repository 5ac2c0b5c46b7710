"""From statistics to a pruned model: masks alone, or masks and a refit, in one or more rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.model import Model
from onnx_sipp.options import Options
from onnx_sipp.progress import Progress
from onnx_sipp.pruning.error_budget import error_budget
from onnx_sipp.pruning.importance import LayerStatistics
from onnx_sipp.pruning.methods import Decision, Goal, decide, layer_counts
from onnx_sipp.pruning.mixing import CANDIDATES, Choice, Evidence, choose, removal_costs, settle
from onnx_sipp.sequential import Refitter
from onnx_sipp.weights import Weight, stored_values

__all__ = ["Outcome", "mask_and_refit", "mask_only"]


@dataclass(frozen=True)
class Outcome:
    """A pruned model.

    Attributes:
        model: with the new weights and biases.
        decisions: per weight, the mask and the new values.
        choices: per weight, how the refit went; empty if there was none.
    """

    model: Model
    decisions: list[Decision]
    choices: list[Choice]

    @property
    def changed(self) -> list[NDArray[np.float64]]:
        """Per weight, its new values."""
        return [decision.weight for decision in self.decisions]

    @property
    def shifts(self) -> list[NDArray[np.float64]]:
        """Per weight, what the bias gained, ``[group, out]``."""
        if self.choices:
            return [choice.bias for choice in self.choices]
        return [np.zeros(weight.shape[:2]) for weight in self.changed]


def mask_only(
    dense: Model,
    weights: Sequence[Weight],
    statistics: Sequence[LayerStatistics],
    goal: Goal,
    options: Options,
) -> Outcome:
    """Drop weights and leave the others as they are, or reweighted where they were sampled."""
    rng = np.random.default_rng(options.seed)
    decisions = decide(statistics, goal, options.method, options.allocation, rng)
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
    progress.stage("measuring layers")
    evidence = refitter.evidence(progress)
    total = sum(found.weight.size for found in evidence)
    for round_ in range(1, options.rounds + 1):
        progress.stage(f"refitting, round {round_} of {options.rounds}")
        share = (goal.keep / total) ** (round_ / options.rounds)
        keep = goal.keep if round_ == options.rounds else round(total * share)
        chooser = _Chooser(evidence, statistics, replace(goal, keep=keep), options, round_)
        if options.compensate != "sequential":
            model, choices = refitter.apply(evidence, chooser, progress)
            evidence = [replace(e, weight=c.weight) for e, c in zip(evidence, choices, strict=True)]
        else:
            model, choices, evidence = refitter.refit(evidence, chooser, progress)
    decisions = [
        Decision(c.kept, c.weight, np.zeros((2, *c.kept.shape[:2]), np.bool_)) for c in choices
    ]
    return Outcome(model, decisions, choices)


class _Chooser:
    """Decides on one layer after the other within the budgets of a round."""

    def __init__(
        self,
        evidence: Sequence[Evidence],
        statistics: Sequence[LayerStatistics],
        goal: Goal,
        options: Options,
        round_: int,
    ) -> None:
        self._options, self._round = options, round_
        self._masks: list[NDArray[np.bool_]] | None = None
        now = [_updated(s, e) for s, e in zip(statistics, evidence, strict=True)]
        if options.method != "mixed":
            rng = np.random.default_rng([options.seed, round_])
            made = decide(now, goal, options.method, options.allocation, rng)
            self._masks = [decision.kept for decision in made]
        elif len(evidence) == 1:
            self._counts = [goal.keep or 0]
        elif options.allocation == "error":
            self._counts = _error_counts(evidence, goal, options)
        else:
            self._counts = layer_counts(now, goal, options.allocation)

    def __call__(self, index: int, evidence: Evidence) -> Choice:
        refits = self._options.compensate != "none"
        threads = self._options.thread_count
        if self._masks is not None:
            return settle(
                evidence, self._masks[index], self._options.method, threads=threads, refits=refits
            )
        return choose(
            evidence,
            self._counts[index],
            self._options.seed + self._round,
            names=self._options.candidates or tuple(CANDIDATES),
            threads=threads,
            refits=refits,
        )


def _error_counts(evidence: Sequence[Evidence], goal: Goal, options: Options) -> list[int]:
    assert goal.keep is not None
    return error_budget(
        [removal_costs(found, options.thread_count) for found in evidence],
        [float(np.sum(found.gain**2 * found.fit.spread())) for found in evidence],
        [int(np.count_nonzero(found.weight)) for found in evidence],
        goal.keep,
    )


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
