"""From statistics to a pruned and refitted model, in one or more rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from onnx_sipp.affordable import why_no_trials
from onnx_sipp.alone import WAYS
from onnx_sipp.budgets import Budgets
from onnx_sipp.calibration.samples import Samples
from onnx_sipp.config.applying import WeightRules
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.idle import Idle
from onnx_sipp.keeping.folder import RunFolder
from onnx_sipp.keeping.outcomes import KeptOutcomes
from onnx_sipp.keeping.surveys import read_surveys, write_surveys
from onnx_sipp.known import Known
from onnx_sipp.layer_sums import Sums
from onnx_sipp.looks import Looked, Looker, Looks
from onnx_sipp.measures import Measured
from onnx_sipp.options import Options
from onnx_sipp.outcome import Outcome
from onnx_sipp.progress import Progress
from onnx_sipp.pruned import PrunedWeights
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.methods import Goal
from onnx_sipp.pruning.survey import Impact
from onnx_sipp.respend import REPEATS, spend_again
from onnx_sipp.sequential import Refitter
from onnx_sipp.weights import Weight

if TYPE_CHECKING:
    from onnx_sipp.cluster.crew import Crew

__all__ = ["LEAST_SHARE", "Run"]

# Of its weights, that a layer keeps at least where it is pruned alone: below, errors saturate.
LEAST_SHARE = 0.3
# To compare budgets, on how many samples layers are refitted, and how their weights are chosen.
_TRIAL_SAMPLES, _TRIAL_CANDIDATE = 256, "removal-cost"
# Most passes that are repeated without what did nothing, on made-up samples.
_MADE_UP_REPEATS = 1
_SURVEY = "survey.npz"


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
        crew: Crew | None = None,
    ) -> None:
        self._refitter, self._weights, self._measured = refitter, weights, measured
        self._kept, self._crew = kept, crew
        self._outcomes = None if kept is None else KeptOutcomes(kept, refitter.form)
        self._goal, self._options, self._progress = goal, options, progress
        capacities = [weight.alive for weight in weights]
        self._budgets = Budgets(weights, measured, rules, (), capacities)
        self._unit = next((w.cells.unit for w in weights if w.cells is not None), 1)
        self._by_error = self._budgets.by_error(options)
        self._notes = _told_of_masks(weights, rules)
        self._with_impacts = self._by_error and options.allocation in ("auto", "impact")
        if self._with_impacts:
            limited = options.allocation == "auto"
            if why := why_no_trials(weights, measured, samples, limited=limited):
                self._with_impacts = False
                self._notes = (f"{why}, so the budget is `error`: by the layers' own errors alone",)
        self._looks = Looks.of()
        self._rectifies = options.compensate != "none"
        self._repeats = _MADE_UP_REPEATS if samples.synthetic else REPEATS
        if share is None:
            share = (goal.keep or 0) / sum(weight.units for weight in weights)
        self._share = max(share, LEAST_SHARE)

    def begin(self) -> None:
        """Look at the dense model, as far as that is needed."""
        idle = [Idle.none(weight) for weight in self._weights]
        if self._options.frees_dead_paths:
            idle = self._found_idle()
        if self._goal.keep is None:
            self._goal = replace(self._goal, keep=self._budgets.without(idle).most)
        if self._options.frees_dead_paths:
            self.leave_out(idle)
        self.survey()

    def _found_idle(self, model: Lowered | None = None) -> list[Idle]:
        """What does nothing, but for weights with a sparsity of their own: theirs is met."""
        found = self._refitter.idle(model)
        for index in self._budgets.rules.sparsity:
            found[index] = Idle.none(self._weights[index])
        return found

    @property
    def most(self) -> int:
        """How many weights can be kept."""
        assert self._goal.keep is not None
        return self._goal.keep

    def at(self, goal: Goal) -> Run:
        """The same with another goal; it can keep no more weights than the first one."""
        other = copy(self)
        other._goal = goal  # noqa: SLF001 - of the same class
        other._refitter = copy(self._refitter)  # noqa: SLF001 - it will leave out other weights
        return other

    def known(self) -> Known:
        """What is known so far."""
        budgets = self._budgets
        return Known(
            self._goal, self._share, budgets.idle, budgets.capacities, self._looks,
            self._refitter.shared,
        )  # fmt: skip

    def knowing(self, known: Known) -> Run:
        """The same in a state that a run of the same model was in."""
        other = self.at(known.goal)
        other._share = known.share  # noqa: SLF001 - of the same class
        other._budgets = replace(  # noqa: SLF001
            self._budgets, idle=known.idle, capacities=list(known.capacities)
        )
        other._looks = known.looks  # noqa: SLF001
        other._refitter.know(known.shared, known.idle)  # noqa: SLF001
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
        curves = self._looks.curves(plans[plan], len(self._weights))
        return replace(best, plan=plan, plans=errors, curves=curves)

    def _tried(self, names: Sequence[str]) -> tuple[dict[str, float], Outcome | None]:
        """Errors of budgets, if they are several; and the pass by the best one, if it was made."""
        if self._crew is not None and self._crew.makes_passes:
            return self._tried_by(self._crew, names)
        return {name: self.error_of(name) for name in names} if len(names) > 1 else {}, None

    def _tried_by(
        self, crew: Crew, names: Sequence[str]
    ) -> tuple[dict[str, float], Outcome | None]:
        known, form, progress = self.known(), self._refitter.form, self._progress
        if len(names) > 1:
            progress.stage("comparing budgets")
            return crew.compare(known, names, form, progress)
        (name,) = names
        progress.stage(_stage_name(name, 1, 1))
        return {}, self._or_kept(name, lambda: crew.passed(known, name, form, progress))

    def passed(self, plan: str) -> Outcome:
        """The outcome of a careful pass by one budget."""
        return self._passed(self.plans()[plan], plan)

    def _passed(self, impacts: Sequence[Impact], plan: str) -> Outcome:
        """Prune by one budget; in several rounds only where one round does not err less."""
        several, rounds = self.in_rounds(impacts, plan), self._options.rounds
        if rounds == 1 or self._options.method != "mixed":
            return several
        told = f"{rounds} rounds err more at the outputs than one round, so that is used"
        one = self._in(1, (*self._notes, told)).in_rounds(impacts, plan)
        error = self._refitter.output_error
        return several if error(several.model) <= error(one.model) else one

    def _in(self, rounds: int, notes: tuple[str, ...]) -> Run:
        """The same in another number of rounds, which notes explain."""
        other = copy(self)
        other._options = replace(self._options, rounds=rounds)  # noqa: SLF001 - of the same class
        other._notes = notes  # noqa: SLF001
        return other

    def trial(self, plan: str) -> Lowered:
        """Prune by a budget in a pass that is short of care: the result errs somewhat more."""
        return self._hasty().in_rounds(self.plans()[plan], plan).model

    def survey(self) -> None:
        """Look at the layers of the dense model, as far as that is needed."""
        shared = [index for index, weight in enumerate(self._weights) if len(weight.layers) > 1]
        if not (self._by_error or self._with_impacts or shared):
            return
        before = None if self._kept is None else self._kept.part(_SURVEY, read_surveys)
        look, indices = self._look, list(range(len(self._weights)))
        if before is not None:  # but for the evidence that layers share
            self._looks = Looks.of(*before)
            look, indices = _nothing, shared
        if indices:
            self._progress.stage("measuring layers")
            if not self._surveyed_by_crew(indices, alone=before is None and self._with_impacts):
                self._refitter.survey(look, self._progress)
        if before is None and self._kept is not None:
            seen = self._looks
            self._kept.keep(_SURVEY, lambda path: write_surveys(path, seen.first, seen.impacts))

    def _surveyed_by_crew(self, indices: Sequence[int], *, alone: bool) -> bool:
        """Have layers of the dense model looked at by workers; says whether they could."""
        if self._crew is None:
            return False
        sizes = self._refitter.batch_sizes()
        found = self._crew.survey(self.known(), indices, sizes, self._progress, alone=alone)
        if found is None:
            return False
        for looked in found:
            self._looks.take(looked)
        shared = {made.index: made.shared for made in found if made.shared is not None}
        self._refitter.know({**self._refitter.shared, **shared}, self._budgets.idle)
        return True

    def evidence(self, index: int, sums: Sequence[Sums]) -> Evidence:
        """See `Refitter.evidence`."""
        return self._refitter.evidence(index, sums)

    @property
    def _looker(self) -> Looker:
        refitter, weights, options = self._refitter, self._weights, self._options
        return Looker(refitter, weights, options, self._share, self._by_error)

    def look(self, index: int, evidence: Evidence, errors: Mapping[bool, float]) -> Looked:
        """Look at one layer of the dense model.

        Args:
            index: of the weight.
            evidence: of it.
            errors: see `error_alone`, by way; empty if the layer has not been pruned alone.
        """
        looker, impact = self._looker, self._looks.impacts.get(index)
        if errors:
            impact = looker.impact(errors)
        return looker.look(index, evidence, self._budgets.capacities[index], impact)

    def error_alone(self, index: int, evidence: Evidence, *, by_neuron: bool) -> float:
        """See `Looker.error_alone`."""
        return self._looker.error_alone(index, evidence, by_neuron=by_neuron)

    def _look(self, index: int, evidence: Evidence) -> None:
        errors = {}
        if self._with_impacts:
            errors = {way: self.error_alone(index, evidence, by_neuron=way) for way in WAYS}
        self._looks.take(self.look(index, evidence, errors))

    def plans(self) -> dict[str, list[Impact]]:
        """See `Looks.plans`."""
        return self._looks.plans(self._options.allocation)

    def error_of(self, plan: str) -> float:
        """Relative error of the model's outputs by a budget, in a pass that is short of care."""
        return float(self._refitter.output_error(self.trial(plan)) ** 0.5)

    def _hasty(self) -> Run:
        """The same with less care."""
        quick = copy(self)
        quick._refitter = self._refitter.on_some(_TRIAL_SAMPLES)  # noqa: SLF001 - of the same class
        quick._options = replace(self._options, candidates=(_TRIAL_CANDIDATE,), rounds=1)  # noqa: SLF001
        rules = replace(self._budgets.rules, candidates={})
        quick._budgets = replace(self._budgets, rules=rules)  # noqa: SLF001
        quick._rectifies = False  # noqa: SLF001
        return quick

    def in_rounds(self, impacts: Sequence[Impact], plan: str = "") -> Outcome:
        """Prune and refit by one budget."""
        return self._or_kept(plan, lambda: self._made(impacts, plan))

    def _or_kept(self, plan: str, make: Callable[[], Outcome]) -> Outcome:
        """Make a pass, unless an interrupted run has done it."""
        if self._outcomes is None:
            return make()
        told = {"keep": self._goal.keep, "plan": plan, "rounds": self._options.rounds}
        return self._outcomes.or_made(told, make)

    def _made(self, impacts: Sequence[Impact], plan: str) -> Outcome:
        options, goal = self._options, self._goal
        assert goal.keep is not None
        total = sum(weight.units for weight in self._weights)
        looks = self._looks
        before: PrunedWeights | None = None
        for round_ in range(1, options.rounds + 1):
            self._progress.stage(_stage_name(plan, round_, options.rounds))
            share = (goal.keep / total) ** (round_ / options.rounds)
            keep = goal.keep if round_ == options.rounds else round(total * share)
            chooser = self._budgets.chooser(
                options, replace(goal, keep=keep), looks.surveys, looks.first, impacts, before,
                round_,
            )  # fmt: skip
            looks = replace(looks, surveys={False: {}, True: {}})
            before = self._refitter.refit(
                chooser,
                self._progress,
                sequential=options.compensate == "sequential",
                rectify=self._rectifies and round_ == options.rounds,
                before=before,
                look=partial(self._look_again, looks) if round_ < options.rounds else None,
            )
        assert before is not None
        settled = before.settled()
        biases = {} if options.compensate == "none" else self._refitter.biases(settled)
        return Outcome(
            before.model, settled, biases=biases, notes=self._notes, rounds=options.rounds
        )

    def leave_out(self, idle: Sequence[Idle]) -> bool:
        """Choose no idle weights any more, unless too few others are left; says whether."""
        assert self._goal.keep is not None
        budgets = self._budgets.without(idle)
        if budgets.most < self._goal.keep:
            return False
        self._budgets = budgets
        self._refitter.leave_out(idle)
        return True

    def improved(self, best: Outcome, impacts: Sequence[Impact], plan: str = "") -> Outcome:
        """Repeat a pass where there is something to gain.

        Args:
            best: what came of it.
            impacts: of its budget.
            plan: name of its budget.
        """
        options, keep = self._options, self._goal.keep
        assert keep is not None
        if options.compensate == "none" or not options.frees_dead_paths:
            return best
        return spend_again(
            best,
            self._weights,
            keep * self._unit,
            find=self._found_idle,
            leave_out=self._leave_out_and_survey,
            again=lambda: self.in_rounds(impacts, plan),
            error=self._refitter.output_error,
            left=self._budgets.idle,
            repeats=self._repeats,
        )

    def _leave_out_and_survey(self, idle: Sequence[Idle]) -> bool:
        """Leave out idle weights, and look again at the layers that have any."""
        if not self.leave_out(idle):
            return False
        if all(found.is_empty for found in idle):
            self._looks = replace(self._looks, surveys=self._looks.first)
        elif self._by_error:
            self._progress.stage("measuring layers without dead paths")
            self._looks = self._looks.anew()
            changed = [index for index, found in enumerate(idle) if not found.is_empty]

            def look(index: int, evidence: Evidence) -> None:
                if index in changed:
                    self._look_again(self._looks, index, evidence)

            if not self._surveyed_by_crew(changed, alone=False):
                self._refitter.survey(look, self._progress)
        return True

    def _look_again(self, looks: Looks, index: int, evidence: Evidence) -> None:
        looks.take(self.look(index, evidence, {}))


def _nothing(index: int, evidence: Evidence) -> None:
    """Look at nothing."""


def _stage_name(plan: str, round_: int, rounds: int) -> str:
    budget = f", {plan} budget" if plan else ""
    return f"refitting{budget}, round {round_} of {rounds}" if rounds > 1 else f"refitting{budget}"


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
