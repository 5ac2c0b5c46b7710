"""From statistics to a pruned and refitted model, in one or more rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace

import numpy as np

from onnx_sipp.budgeting.affordable import trials
from onnx_sipp.budgeting.budgets import Budgets
from onnx_sipp.budgeting.known import Known
from onnx_sipp.budgeting.respend import REPEATS, spend_again
from onnx_sipp.budgeting.rounds import made_in_rounds
from onnx_sipp.budgeting.surveying import Surveyor
from onnx_sipp.budgeting.workers import Workers
from onnx_sipp.calibration.samples import Samples
from onnx_sipp.config.applying import WeightRules
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.keeping.folder import RunFolder
from onnx_sipp.keeping.outcomes import KeptOutcomes
from onnx_sipp.measures import Measured
from onnx_sipp.options import Options
from onnx_sipp.outcome import Outcome
from onnx_sipp.progress import Progress
from onnx_sipp.pruning.methods import Goal
from onnx_sipp.pruning.survey import Impact
from onnx_sipp.refitting.idle import Idle
from onnx_sipp.refitting.refitter import Refitter
from onnx_sipp.weights import Weight

__all__ = ["LEAST_SHARE", "Run"]

# Of its weights, that a layer keeps at least where it is pruned alone: below, errors saturate.
LEAST_SHARE = 0.3
# To compare budgets, on how many samples layers are refitted, and how their weights are chosen.
_TRIAL_SAMPLES, _TRIAL_CANDIDATE = 256, "removal-cost"
# Most passes that are repeated without what did nothing, on made-up samples.
_MADE_UP_REPEATS = 1


class Run:
    """Drops weights and refits the others, in rounds that keep keep^(r/R) of them.

    What is measured of the dense model by `begin` serves every goal that `at` gives.

    Args:
        refitter: of the dense model.
        weights: that are pruned.
        measured: their statistics.
        samples: what it is pruned on.
        goal: with ``keep``; without, it becomes all weights that do something.
        options: of the run.
        progress: told how far it is.
        rules: for single weights.
        share: of its weights that a layer keeps where it is pruned alone, to see what that does to
            the outputs; None for that of the goal.
        kept: where finished parts of the run are kept, None if they are not.
        crew: workers that look at layers and make passes, None if this process does it.
    """

    def __init__(
        self,
        refitter: Refitter,
        weights: Sequence[Weight],
        measured: Sequence[Measured],
        samples: Samples,
        goal: Goal,
        options: Options,
        progress: Progress,
        rules: WeightRules,
        share: float | None = None,
        kept: RunFolder | None = None,
        crew: Workers | None = None,
    ) -> None:
        self._weights, self._crew = weights, crew
        self._outcomes = None if kept is None else KeptOutcomes(kept, refitter.form)
        self._goal, self._options, self._progress = goal, options, progress
        self._rectifies = options.compensate != "none"
        self._repeats = _MADE_UP_REPEATS if samples.synthetic else REPEATS
        self._notes = _told_of_masks(weights, rules)
        capacities = [weight.alive for weight in weights]
        budgets = Budgets(weights, measured, rules, (), capacities)
        tries = False
        if budgets.by_error(options):
            work = sum(found.patches * found.weight.size for found in measured)
            tries, why = trials(weights, work, samples, options.allocation)
            if why:
                self._notes = (f"{why}, so the budget is `error`: by the layers' own errors alone",)
        if share is None:
            share = (goal.keep or 0) / sum(weight.units for weight in weights)
        self.surveyor = Surveyor(
            refitter, budgets, options, progress, max(share, LEAST_SHARE),
            prunes_alone=tries, kept=kept, crew=crew,
        )  # fmt: skip

    def begin(self) -> None:
        """Look at the dense model, as far as that is needed."""
        surveyor, frees = self.surveyor, self._options.frees_dead_paths
        idle = surveyor.found_idle() if frees else [Idle.none(weight) for weight in self._weights]
        if self._goal.keep is None:
            self._goal = replace(self._goal, keep=surveyor.budgets.without(idle).most)
        if frees:
            surveyor.leave_out(idle, self.most)
        surveyor.survey(self._goal)

    @property
    def most(self) -> int:
        """How many weights can be kept."""
        assert self._goal.keep is not None
        return self._goal.keep

    def at(self, goal: Goal) -> Run:
        """The same with another goal; it can keep no more weights than the first one."""
        return self._with(self.surveyor.copied(), goal)

    def knowing(self, known: Known) -> Run:
        """The same in a state that a run of the same model was in."""
        return self._with(self.surveyor.knowing(known), known.goal)

    def _with(self, surveyor: Surveyor, goal: Goal) -> Run:
        other = copy(self)
        other.surveyor, other._goal = surveyor, goal  # noqa: SLF001 - of the same class
        return other

    def best(self, plan: str | None = None) -> Outcome:
        """Prune by the budget that errs least, or by the one of a name."""
        plans = self.plans()
        names = list(plans) if plan is None else [plan]
        errors, passed = self._tried(names)
        plan = min(names, key=lambda name: errors.get(name, 0.0))
        passed = passed or self.passed(plan)
        run = self._in(passed.rounds, passed.notes)
        best = run.improved(passed, plans[plan], plan)
        curves = self.surveyor.looks.curves(plans[plan], len(self._weights))
        return replace(best, plan=plan, plans=errors, curves=curves)

    def _tried(self, names: Sequence[str]) -> tuple[dict[str, float], Outcome | None]:
        """Errors of budgets, if they are several; and the pass by the best one, if it was made.

        A single pass is made by this process: workers could not share it, they lend their cores.
        """
        if len(names) == 1:
            return {}, None
        if self._crew is None or not self._crew.can_compare:
            return {name: self.error_of(name) for name in names}, None
        known, form = self.surveyor.known(self._goal), self.surveyor.refitter.form
        self._progress.stage("comparing budgets")
        return self._crew.compare(known, names, form, self._progress)

    def passed(self, plan: str) -> Outcome:
        """The outcome of a careful pass by one budget, in several rounds only if that is better."""
        impacts = self.plans()[plan]
        several, rounds = self.in_rounds(impacts, plan), self._options.rounds
        if rounds == 1 or self._options.method != "mixed":
            return several
        told = f"{rounds} rounds err more at the outputs than one round, so that is used"
        one = self._in(1, (*self._notes, told)).in_rounds(impacts, plan)
        error = self.surveyor.refitter.output_error
        return several if error(several.model) <= error(one.model) else one

    def _in(self, rounds: int, notes: tuple[str, ...]) -> Run:
        """The same in another number of rounds, which notes explain."""
        other = self.at(self._goal)
        other._options = replace(self._options, rounds=rounds)  # noqa: SLF001 - of the same class
        other._notes = notes  # noqa: SLF001
        return other

    def trial(self, plan: str) -> Lowered:
        """Prune by a budget in a pass that is short of care: the result errs somewhat more."""
        return self._hasty().in_rounds(self.plans()[plan], plan).model

    def plans(self) -> dict[str, list[Impact]]:
        """See `Looks.plans`."""
        return self.surveyor.plans()

    def error_of(self, plan: str) -> float:
        """Relative error of the model's outputs by a budget, in a pass that is short of care."""
        return float(self.surveyor.refitter.output_error(self.trial(plan)) ** 0.5)

    def _hasty(self) -> Run:
        """The same with less care."""
        quick = self._with(self.surveyor.in_haste(_TRIAL_SAMPLES), self._goal)
        quick._options = replace(self._options, candidates=(_TRIAL_CANDIDATE,), rounds=1)  # noqa: SLF001 - of the same class
        quick._rectifies = False  # noqa: SLF001
        return quick

    def in_rounds(self, impacts: Sequence[Impact], plan: str = "") -> Outcome:
        """Prune and refit by one budget."""

        def make() -> Outcome:
            """Make the pass."""
            made = made_in_rounds(
                self.surveyor, self._goal, self._options, impacts, self._progress,
                plan=plan, rectify=self._rectifies,
            )  # fmt: skip
            return replace(made, notes=self._notes)

        return self._or_kept(plan, make)

    def _or_kept(self, plan: str, make: Callable[[], Outcome]) -> Outcome:
        """Make a pass, unless an interrupted run has done it."""
        if self._outcomes is None:
            return make()
        told = {"keep": self._goal.keep, "plan": plan, "rounds": self._options.rounds}
        return self._outcomes.or_made(told, make)

    def improved(self, best: Outcome, impacts: Sequence[Impact], plan: str = "") -> Outcome:
        """Repeat a pass where there is something to gain.

        Args:
            best: what came of it.
            impacts: of its budget.
            plan: name of its budget.
        """
        options, surveyor = self._options, self.surveyor
        if options.compensate == "none" or not options.frees_dead_paths:
            return best
        return spend_again(
            best,
            self._weights,
            self.most * next((w.cells.unit for w in self._weights if w.cells is not None), 1),
            find=surveyor.found_idle,
            leave_out=self._leave_out,
            again=lambda: self.in_rounds(impacts, plan),
            error=surveyor.refitter.output_error,
            left=surveyor.budgets.idle,
            repeats=self._repeats,
        )

    def _leave_out(self, idle: Sequence[Idle]) -> bool:
        """Leave out idle weights, unless too few others are left, and look at layers again."""
        left = self.surveyor.leave_out(idle, self.most)
        if left:
            self.surveyor.survey_again(idle, self._goal)
        return left


def _told_of_masks(weights: Sequence[Weight], rules: WeightRules) -> tuple[str, ...]:
    """What to say of weights that masks keep, but that are zero."""
    if rules.masks is None:
        return ()
    idle = 0
    for index, weight in enumerate(weights):
        for number, block in enumerate(weight.blocks):
            idle += int(np.count_nonzero(rules.masks(index, number) & (block.matrix == 0)))
    if not idle:
        return ()
    return (f"{idle} of the weights that masks keep were zero before, and stay so",)
