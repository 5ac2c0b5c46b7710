"""Prune a calibrated model, as often as asked: what is measured of the dense one is kept."""

from __future__ import annotations

from onnx_sipp.budgeting.masking import mask_only
from onnx_sipp.budgeting.run import Run
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.outcome import Outcome
from onnx_sipp.prepared import Prepared
from onnx_sipp.pruning.methods import Goal
from onnx_sipp.store import TensorStore

__all__ = ["Passes"]


class Passes:
    """Makes pruned models of a calibrated one.

    Args:
        prepared: the model.
        first: the goal that keeps most of all that will be asked for; one without ``keep`` allows
            all that do anything.
        share: see `run.Run`; what layers do alone is then the same for all goals.
    """

    def __init__(self, prepared: Prepared, first: Goal, share: float | None = None) -> None:
        self._prepared = prepared
        self._run: Run | None = None
        options = prepared.options
        if options.compensate == "none" and options.method != "mixed":
            return
        self._run = Run(
            prepared.refitter(),
            prepared.weights,
            prepared.measured,
            prepared.samples,
            first,
            options,
            prepared.progress,
            prepared.rules,
            share,
            prepared.kept,
            prepared.crew,
        )
        self._run.begin()

    def careful(self, goal: Goal, plan: str | None = None) -> Outcome:
        """Prune as well as it can be done.

        Args:
            goal: keeps no more than the first one.
            plan: name of the budget to prune by, None to compare them.
        """
        return self._masked(goal) if self._run is None else self._run.at(goal).best(plan)

    def trial(self, goal: Goal) -> Lowered:
        """Prune in a short pass, which errs somewhat more."""
        if self._run is None:
            return self._masked(goal).model
        return self._run.at(goal).trial(list(self._run.plans())[-1])

    @property
    def most(self) -> int:
        """How many weights can be kept, where the first goal does not say it."""
        if self._run is None:
            return sum(weight.alive for weight in self._prepared.weights)
        return self._run.most

    @property
    def are_alike(self) -> bool:
        """Whether a short pass gives what a careful one does."""
        return self._run is None

    def _masked(self, goal: Goal) -> Outcome:
        prepared = self._prepared
        store = TensorStore(0, prepared.options.workdir)
        return mask_only(
            prepared.lowered, prepared.weights, prepared.measured, goal, prepared.options, store
        )
