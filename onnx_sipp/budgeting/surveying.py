"""Survey the dense model: every layer is looked at alone, by this process or by workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace

from onnx_sipp.budgeting.alone import prune_alone
from onnx_sipp.budgeting.budgets import Budgets
from onnx_sipp.budgeting.known import Known
from onnx_sipp.budgeting.looks import LayerLook, Looks
from onnx_sipp.budgeting.workers import Workers
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.keeping.folder import RunFolder
from onnx_sipp.keeping.surveys import read_surveys, write_surveys
from onnx_sipp.options import Options
from onnx_sipp.progress import Progress
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.methods import Goal
from onnx_sipp.pruning.survey import Impact, Survey, surveys_of
from onnx_sipp.refitting.idle import Idle
from onnx_sipp.refitting.refitter import Refitter

__all__ = ["Surveyor"]

_SURVEY = "survey.npz"


class Surveyor:
    """Looks at the layers of a dense model, and keeps what it has seen.

    Args:
        refitter: of the model.
        budgets: of its weights, nothing left out yet.
        options: of the run.
        progress: told how far it is.
        share: of its weights that a layer keeps where it is pruned alone.
        prunes_alone: whether to prune every layer alone, to see what that does to the outputs.
        kept: where finished parts of the run are kept, None if they are not.
        crew: workers that look at layers, None if this process does it.
    """

    def __init__(
        self,
        refitter: Refitter,
        budgets: Budgets,
        options: Options,
        progress: Progress,
        share: float,
        *,
        prunes_alone: bool,
        kept: RunFolder | None = None,
        crew: Workers | None = None,
    ) -> None:
        self.refitter, self.budgets, self.looks = refitter, budgets, Looks.of()
        self._options, self._progress, self._share = options, progress, share
        self._kept, self._crew = kept, crew
        self._prunes_alone, self._by_error = prunes_alone, budgets.by_error(options)

    def copied(self) -> Surveyor:
        """The same, to leave out other weights."""
        other = copy(self)
        other.refitter = copy(self.refitter)
        return other

    def in_haste(self, samples: int) -> Surveyor:
        """The same for passes that are short of care.

        Args:
            samples: most of them that layers are refitted on.
        """
        other = copy(self)
        other.refitter = self.refitter.on_some(samples)
        rules = replace(self.budgets.rules, candidates={})
        other.budgets = replace(self.budgets, rules=rules)
        return other

    def known(self, goal: Goal) -> Known:
        """What is known so far, for a run with a goal."""
        budgets, shared = self.budgets, self.refitter.survey.shared
        return Known(goal, self._share, budgets.idle, budgets.capacities, self.looks, shared)

    def knowing(self, known: Known) -> Surveyor:
        """The same where something else is known of the model."""
        other = self.copied()
        other._share, other.looks = known.share, known.looks  # noqa: SLF001 - of the same class
        capacities = list(known.capacities)
        other.budgets = replace(self.budgets, idle=known.idle, capacities=capacities)
        other.refitter.know(known.shared, known.idle)
        return other

    def plans(self) -> dict[str, list[Impact]]:
        """See `Looks.plans`."""
        return self.looks.plans(self._options.allocation)

    def found_idle(self, model: Lowered | None = None) -> list[Idle]:
        """What does nothing, but for weights with a sparsity of their own: theirs is met."""
        found, budgets = self.refitter.idle(model), self.budgets
        for index in budgets.rules.sparsity:
            found[index] = Idle.none(budgets.weights[index])
        return found

    def leave_out(self, idle: Sequence[Idle], keep: int) -> bool:
        """Choose no idle weights any more, unless too few others are left; says whether.

        Args:
            idle: per weight.
            keep: how many units have to be left.
        """
        budgets = self.budgets.without(idle)
        if budgets.most < keep:
            return False
        self.budgets = budgets
        self.refitter.leave_out(idle)
        return True

    def survey(self, goal: Goal) -> None:
        """Look at the layers of the dense model, as far as that is needed.

        Args:
            goal: of the run.
        """
        weights = self.budgets.weights
        shared = [index for index, weight in enumerate(weights) if len(weight.layers) > 1]
        if not (self._by_error or self._prunes_alone or shared):
            return
        before = None if self._kept is None else self._kept.part(_SURVEY, read_surveys)
        if before is None:
            self._look_at(range(len(weights)), goal, alone=self._prunes_alone)
            if self._kept is not None:
                seen = self.looks
                self._kept.keep(_SURVEY, lambda path: write_surveys(path, seen.first, seen.impacts))
            return
        self.looks = Looks.of(*before)
        if shared:  # the evidence that layers share is not kept
            self._progress.stage("measuring layers")
            if not self._done_by_crew(shared, goal, alone=False):
                self.refitter.survey.run(_nothing, self._progress)

    def survey_again(self, idle: Sequence[Idle], goal: Goal) -> None:
        """Look again at the layers that have idle weights, now that these are left out.

        Args:
            idle: per weight.
            goal: of the run.
        """
        if all(found.is_empty for found in idle):
            self.looks = replace(self.looks, surveys=self.looks.first)
        elif self._by_error:
            self.looks = self.looks.anew()
            changed = [index for index, found in enumerate(idle) if not found.is_empty]
            self._look_at(changed, goal, " without dead paths")

    def _look_at(
        self, indices: Sequence[int], goal: Goal, told: str = "", *, alone: bool = False
    ) -> None:
        """Have layers of the dense model looked at.

        Args:
            indices: of their weights.
            goal: of the run.
            told: what is special about it.
            alone: whether to prune each of them alone.
        """
        if not indices:
            return
        self._progress.stage(f"measuring layers{told}")
        if self._done_by_crew(indices, goal, alone=alone):
            return

        def see(index: int, evidence: Evidence) -> None:
            if index in indices:
                self.looks.take(self.look(index, evidence, alone=alone))

        # To prune one alone runs the model, which has all threads.
        self.refitter.survey.run(see, self._progress, together=not alone)

    def _done_by_crew(self, indices: Sequence[int], goal: Goal, *, alone: bool) -> bool:
        """Have layers looked at by workers; says whether they could."""
        if self._crew is None:
            return False
        sizes = self.refitter.batch_sizes()
        found = self._crew.survey(self.known(goal), indices, sizes, self._progress, alone=alone)
        if found is None:
            return False
        for look in found:
            self.looks.take(look)
        shared = {look.index: look.shared for look in found if look.shared is not None}
        self.refitter.know({**self.refitter.survey.shared, **shared}, self.budgets.idle)
        return True

    def look(self, index: int, evidence: Evidence, *, alone: bool) -> LayerLook:
        """Follow the error of a layer as its weights are removed, as far as budgets may need it.

        Args:
            index: of the weight.
            evidence: of it, nothing left out.
            alone: whether to prune it alone, to see what that does to the outputs of the model.
        """
        weight, left = self.budgets.weights[index], self.refitter.left(index, evidence)
        impact = self._impact(index, left) if alone else self.looks.impacts.get(index)
        found: Mapping[bool, Survey] = {}
        if self._by_error and left.is_seen:
            ways = (False, True) if impact is not None and impact.by_neuron else (False,)
            room, threads = self.budgets.capacities[index], self._options.thread_count
            found = surveys_of(left, ways, weight.units, room, threads)
        return LayerLook(index, impact, found, evidence if len(weight.layers) > 1 else None)

    def _impact(self, index: int, evidence: Evidence) -> Impact:
        """What it does to the outputs of the model to prune a layer alone; see `prune_alone`."""
        if not evidence.is_seen:
            return Impact(by_neuron=False, share=self._share, error=0.0)
        keep = min(round(self._share * evidence.units), evidence.alive)
        threads = self._options.thread_count
        error, by_neuron = prune_alone(self.refitter, index, evidence, keep, threads)
        return Impact(by_neuron, self._share, error)


def _nothing(index: int, evidence: Evidence) -> None:
    """Look at nothing."""
