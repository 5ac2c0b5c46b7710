"""A pass by one budget, in one or more rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from onnx_sipp.budgeting.looks import Looks
from onnx_sipp.budgeting.surveying import Surveyor
from onnx_sipp.options import Options
from onnx_sipp.outcome import Outcome
from onnx_sipp.progress import Progress
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.methods import Goal
from onnx_sipp.pruning.survey import Impact
from onnx_sipp.refitting.pruned import PrunedWeights

__all__ = ["made_in_rounds"]


def made_in_rounds(
    surveyor: Surveyor,
    goal: Goal,
    options: Options,
    impacts: Sequence[Impact],
    progress: Progress,
    *,
    plan: str,
    rectify: bool,
) -> Outcome:
    """Prune and refit in rounds that keep keep^(r/R) of the weights.

    Args:
        surveyor: knows the dense model.
        goal: with ``keep``.
        options: of the run.
        impacts: of the budget.
        progress: told how far it is.
        plan: name of the budget.
        rectify: in the last round; see `Refitter.refit`.
    """
    assert goal.keep is not None
    total = sum(weight.units for weight in surveyor.budgets.weights)
    looks, refitter = surveyor.looks, surveyor.refitter
    before: PrunedWeights | None = None
    for round_ in range(1, options.rounds + 1):
        progress.stage(_stage_name(plan, round_, options.rounds))
        share = (goal.keep / total) ** (round_ / options.rounds)
        keep = goal.keep if round_ == options.rounds else round(total * share)
        chooser = surveyor.budgets.chooser(
            options, replace(goal, keep=keep), looks.surveys, looks.first, impacts, before, round_
        )
        looks = replace(looks, surveys={False: {}, True: {}})
        before = refitter.refit(
            chooser,
            progress,
            sequential=options.compensate == "sequential",
            rectify=rectify and round_ == options.rounds,
            before=before,
            look=partial(_look_again, surveyor, looks) if round_ < options.rounds else None,
        )
    assert before is not None
    settled = before.settled()
    biases = {} if options.compensate == "none" else refitter.biases(settled)
    return Outcome(before.model, settled, biases=biases, rounds=options.rounds)


def _look_again(surveyor: Surveyor, looks: Looks, index: int, evidence: Evidence) -> None:
    looks.take(surveyor.look(index, evidence, alone=False))


def _stage_name(plan: str, round_: int, rounds: int) -> str:
    budget = f", {plan} budget" if plan else ""
    return f"refitting{budget}, round {round_} of {rounds}" if rounds > 1 else f"refitting{budget}"
