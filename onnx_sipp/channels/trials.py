"""Which counts are best: several budgets, refitted and compared by the model's outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_sipp.channels.decider import UnitDecider
from onnx_sipp.channels.plan import Coupling
from onnx_sipp.channels.survey import Found
from onnx_sipp.channels.target import Target
from onnx_sipp.errors import SippError
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.progress import Progress
from onnx_sipp.pruning.unit_budget import Curve, even_counts, unit_budget
from onnx_sipp.refitting.refitter import Refitter

__all__ = ["Trial", "Trials"]


@dataclass(frozen=True)
class Trial:
    """A refitted model with zeros for what reads units that go.

    Attributes:
        plan: name of the budget.
        counts: per free group, how many units stay.
        decider: knows which.
        model: the refitted one.
        error: relative squared error of its outputs.
    """

    plan: str
    counts: tuple[int, ...]
    decider: UnitDecider
    model: Lowered
    error: float


class Trials:
    """Tries budgets.

    Args:
        refitter: of the dense model.
        coupling: of its groups.
        found: by free group, what the survey tells.
        free: groups that may lose units.
        target: how far to cut.
        threads: of the refits.
        progress: told how far it is.
    """

    def __init__(
        self,
        refitter: Refitter,
        coupling: Coupling,
        found: Mapping[int, Found],
        free: Sequence[int],
        target: Target,
        threads: int,
        progress: Progress,
    ) -> None:
        self._refitter, self._coupling, self._found = refitter, coupling, found
        self._free, self._target = free, target
        self._threads, self._progress = threads, progress
        self._curves = [found[number].measured for number in free]

    def best(self) -> tuple[Trial, dict[str, float]]:
        """The best trial, and the error of every budget.

        Raises:
            SippError: the goal is out of reach.
        """
        trials = [self._tried(name, counts) for name, counts in self._plans().items()]
        best = min(trials, key=lambda trial: trial.error)
        return self._rectified(best), {trial.plan: trial.error**0.5 for trial in trials}

    def _plans(self) -> dict[str, tuple[int, ...]]:
        """Counts per free group, by how the budget was found."""
        share, limit = self._target.share, self._target.limit
        local = [self._found[number].local for number in self._free]
        ways: Mapping[str, Callable[[], list[int] | None]] = {
            "impact": lambda: unit_budget(self._curves, share, limit),
            "inner": lambda: unit_budget(self._inner(), share, limit),
            "error": lambda: unit_budget(local, share, limit),
            "even": lambda: even_counts(self._curves, share, limit),
        }
        found: dict[str, tuple[int, ...]] = {}
        for name, way in ways.items():
            counts = tuple(way() or ())
            if counts and counts not in found.values():
                found[name] = counts
        if not found:
            least = share(np.array([curve.counts[-1] for curve in self._curves], np.float64))
            raise SippError(
                f"not so much can be cut: with the fewest channels in every group {least:.3f} of "
                f"the model are left, and {limit:.3f} were asked for; what stays:"
                + self._coupling.reasons()
            )
        return found

    def _inner(self) -> list[Curve]:
        """Curves that leave all units to groups that several layers read, as streams are.

        What is missing in a stream is missing in all of them, and their errors grow on the way.
        """
        return [
            curve
            if len(self._coupling.readers[number]) == 1
            else Curve(curve.counts[:1], curve.errors[:1])
            for number, curve in zip(self._free, self._curves, strict=True)
        ]

    def _tried(self, name: str, counts: tuple[int, ...]) -> Trial:
        self._progress.stage(f"refitting, {name} budget")
        given = dict(zip(self._free, counts, strict=True))
        decider = UnitDecider(self._coupling, self._found, given, self._threads)
        model = self._refitter.refit(decider, self._progress, sequential=True).model
        return Trial(name, counts, decider, model, self._refitter.output_error(model))

    def _rectified(self, best: Trial) -> Trial:
        """The same units, refitted towards what the next nodes let through, if that is better."""
        if not self._refitter.has_cuts:
            return best
        self._progress.stage("refitting what the next layers let through")
        decider = UnitDecider(self._coupling, self._found, {}, self._threads, best.decider.gone)
        decider.ways = best.decider.ways
        refitted = self._refitter.refit(decider, self._progress, sequential=True, rectify=True)
        error = self._refitter.output_error(refitted.model)
        if error >= best.error:
            return best
        return replace(best, decider=decider, model=refitted.model, error=error)
