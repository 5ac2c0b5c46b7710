"""How many weights every layer keeps in a pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.budgeting.chooser import Chooser
from onnx_sipp.budgeting.masking import blockwise, capacity, decisions, is_small, statistics_now
from onnx_sipp.config.applying import WeightRules
from onnx_sipp.keeping.surveys import Surveys
from onnx_sipp.measures import Measured
from onnx_sipp.options import Options
from onnx_sipp.pruning.deciding import layer_counts
from onnx_sipp.pruning.methods import REFIT_ALLOCATIONS, Goal
from onnx_sipp.pruning.survey import Impact, Survey, error_counts, importance_of
from onnx_sipp.pruning.unseen import share_out
from onnx_sipp.refitting.idle import Idle
from onnx_sipp.refitting.pruned import PrunedWeights
from onnx_sipp.weights import Weight

__all__ = ["Budgets"]


@dataclass(frozen=True)
class Budgets:
    """Shares the weights that stay out among the layers, as the options and rules say.

    Attributes:
        weights: that are pruned.
        measured: their statistics.
        rules: for single weights.
        idle: per weight, what is left out of all choices; empty for nothing.
        capacities: per weight, how many units can be kept.
    """

    weights: Sequence[Weight]
    measured: Sequence[Measured]
    rules: WeightRules
    idle: Sequence[Idle]
    capacities: Sequence[int]

    def by_error(self, options: Options) -> bool:
        """Whether the budget goes by measured error."""
        mixed = options.method == "mixed" and self.rules.masks is None
        several = len(self.weights) > 1
        return mixed and several and not self._n_of_m and options.allocation in REFIT_ALLOCATIONS

    @property
    def _n_of_m(self) -> bool:
        return any(weight.cells and weight.cells.kept for weight in self.weights)

    def without(self, idle: Sequence[Idle]) -> Budgets:
        """The same where other weights are left out.

        Args:
            idle: per weight, these.
        """
        capacities = list(map(capacity, self.weights, idle))
        return replace(self, idle=idle, capacities=capacities)

    @property
    def most(self) -> int:
        """How many weights can be kept, as rules fix those of some layers."""
        fixed = self.rules.fixed([weight.units for weight in self.weights])
        return sum(min(fixed.get(index, have), have) for index, have in enumerate(self.capacities))

    def chooser(
        self,
        options: Options,
        goal: Goal,
        surveys: Surveys,
        first: Surveys,
        impacts: Sequence[Impact],
        before: PrunedWeights | None,
        round_: int,
    ) -> Chooser:
        """What decides on every weight in a round.

        Args:
            options: of the run.
            goal: with ``keep``, of this round.
            surveys: by way and weight, the curves to go by.
            first: those of the dense model.
            impacts: of the budget, per weight; empty if there are none.
            before: what the round before made.
            round_: its number, from 1 on.
        """
        ways = [impact.by_neuron for impact in impacts] or [False] * len(self.weights)
        named = self.rules.candidates
        if self.rules.masks is not None:
            return Chooser(options, round_, ways, masks=self.rules.masks)
        if options.method == "mixed" and len(self.weights) == 1:
            return Chooser(options, round_, ways, counts=[goal.keep or 0], candidates=named)
        if self.by_error(options):
            chosen = [surveys[way].get(index) for index, way in enumerate(ways)]
            told = [
                1.0 if chosen[index] is None else importance_of(first[way][index], impact)
                for index, (way, impact) in enumerate(zip(ways, impacts, strict=bool(impacts)))
            ]
            counts = self._counts(options, goal, chosen, told, round_ / options.rounds)
            return Chooser(options, round_, ways, counts=counts, candidates=named)
        if options.method == "mixed":
            even = self._n_of_m
            counts = (
                self._even_counts(goal)
                if even
                else self._counts_of(options.allocation, goal, before)
            )
            return Chooser(options, round_, ways, counts=counts, candidates=named)
        seed = [options.seed, round_]
        made = decisions(self.measured, goal, options, seed, before, self.idle)
        return Chooser(options, round_, ways, masks=lambda i, n: made(i, n).kept)

    def _counts(
        self,
        options: Options,
        goal: Goal,
        surveys: Sequence[Survey | None],
        importance: Sequence[float],
        part: float,
    ) -> list[int]:
        """The budget by measured error; a layer that no sample reached keeps the share of all.

        Rules come before both.
        """
        assert goal.keep is not None
        fixed = self.rules.fixed([weight.units for weight in self.weights], part)
        fixed = {index: min(count, self.capacities[index]) for index, count in fixed.items()}
        free = [index for index in range(len(surveys)) if index not in fixed]
        if not free:
            return [fixed[index] for index in range(len(surveys))]
        goal = replace(goal, keep=goal.keep - sum(fixed.values()))
        seen = [surveys[index] is not None for index in free]
        counts, left = self._shared_out(goal, seen, free)
        known = [index for index in free if surveys[index] is not None]
        floors = [self.rules.floors.get(index, options.floor) for index in known]
        told = [importance[index] for index in known] if importance else []
        curves = [survey for index in known if (survey := surveys[index]) is not None]
        if curves:
            counts[seen] = error_counts(curves, left, floors, told)
        shared = dict(zip(free, counts, strict=True))
        return [int({**shared, **fixed}[index]) for index in range(len(surveys))]

    def _even_counts(self, goal: Goal) -> list[int]:
        """The same share of every layer, as N:M has it."""
        assert goal.keep is not None
        total = sum(weight.size for weight in self.weights)
        return [round(goal.keep * weight.size / total) for weight in self.weights]

    def _counts_of(self, allocation: str, goal: Goal, before: PrunedWeights | None) -> list[int]:
        """Another budget; likewise."""
        if not is_small(self.measured):
            made = blockwise(self.measured, goal, "magnitude", allocation, [0], before, self.idle)
            return [sum(counts) for counts in made.counts]
        seen = [found.patches > 0 for found in self.measured]
        counts, left = self._shared_out(goal, seen, range(len(seen)))
        known = [
            statistics_now(self.measured, before, self.idle, index)
            for index, reached in enumerate(seen)
            if reached
        ]
        counts[seen] = layer_counts(known, replace(goal, keep=left), allocation)
        return [int(count) for count in counts]

    def _shared_out(
        self, goal: Goal, seen: Sequence[bool], among: Sequence[int]
    ) -> tuple[NDArray[np.int64], int]:
        assert goal.keep is not None
        sizes = [self.weights[index].units for index in among]
        capacities = [self.capacities[index] for index in among]
        return share_out(sizes, capacities, seen, goal.keep)
