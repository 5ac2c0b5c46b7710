"""Find the highest sparsity that meets a goal of fidelity, over one calibration.

Short passes enclose it first. They err more than careful ones, so the careful ones begin somewhat
higher, and tell by how much the short ones are off: their curve of error against sparsity, moved
that far, says where to look next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_sipp.budgeting.passes import Passes
from onnx_sipp.budgeting.run import LEAST_SHARE
from onnx_sipp.errors import SippError
from onnx_sipp.outcome import Outcome
from onnx_sipp.prepared import Prepared
from onnx_sipp.pruning.methods import Goal
from onnx_sipp.report.search import SearchReport, SearchStep, goal_text
from onnx_sipp.searching.judge import Judge

__all__ = ["Found", "search"]

HIGHEST = 0.99
# How close the answer is to a sparsity that misses the goal.
RESOLUTION = 0.01
_SHORT = 6
_CAREFUL = 4
_MOST = 12
# Where careful passes begin, above the answer of the short ones.
_HEAD_START = 0.02


@dataclass(frozen=True)
class Found:
    """The model at the sparsity that was found, and how it was found."""

    outcome: Outcome
    report: SearchReport


def search(prepared: Prepared) -> Found:
    """Prune as far as the goals of the options allow.

    Args:
        prepared: the model; its options have goals.

    Raises:
        UsageError: a goal does not fit the model, or the metric cannot be loaded.
        SippError: no sparsity meets the goals, or the metric fails.
    """
    return _Search(prepared).run()


class _Search:
    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._judge = Judge(prepared)
        self._passes = Passes(prepared, Goal(delta=prepared.options.delta), LEAST_SHARE)
        # Below, only weights go that are zero or do nothing.
        units, (fewest, most) = prepared.units, prepared.reachable
        self._least = 1 - min(self._passes.most - 1, most) / units
        self._highest = min(HIGHEST, 1 - fewest / units)
        self._steps: list[SearchStep] = []
        self._best: Outcome | None = None
        self._plan: str | None = None

    def run(self) -> Found:
        """Enclose the answer, then look closely."""
        if self._judge.told:
            whole = self._judge.step(0.0, self._prepared.dense, careful=True)
            if not whole.meets:
                raise SippError(self._failure(whole))
        end = None if self._passes.are_alike else self._by_short_passes()
        found, tried = self._by_careful_passes(end)
        if self._best is None:
            raise SippError(
                self._failure(next(s for s in self._steps if s.careful and s.sparsity == tried))
            )
        return Found(
            self._best,
            SearchReport(
                self._judge.goals,
                found,
                self._steps,
                self._judge.metric_name,
                self._judge.metric_dense,
            ),
        )

    def _by_short_passes(self) -> float:
        """Halve the range; returns where short passes begin to miss the goals."""
        low, high = self._least, self._highest
        for _ in range(_SHORT):
            middle = round((low + high) / 2, 4)
            model = self._passes.trial(self._prepared.goal(middle)).result()
            step = self._judge.step(middle, model, careful=False)
            self._steps.append(step)
            low, high = (middle, high) if step.meets else (low, middle)
        return (low + high) / 2

    def _by_careful_passes(self, end: float | None) -> tuple[float, float]:
        """Enclose the answer.

        Args:
            end: of short passes, None if there were none.

        Returns:
            The highest sparsity that met the goals, and the lowest that missed them, if any did.
        """
        low, high, stride = self._least, self._highest + RESOLUTION, RESOLUTION
        at = (low + self._highest) / 2 if end is None else end + _HEAD_START
        for count in range(1, _MOST + 1):
            at = max(round(min(at, self._highest), 4), self._least)
            step = self._careful(at)
            low, high = (at, high) if step.meets else (low, at)
            met, missed = self._best is not None, high < self._highest
            enough = end is not None and met and missed and count >= _CAREFUL
            if enough or high - low <= (RESOLUTION + 1e-9 if met else 0):
                break
            # What is written errs in other ways, too, than what short passes look at.
            like = None if self._judge.told else end
            guess = (low + high) / 2 if like is None else self._moved(like, step)
            if met and missed:
                at = min(max(guess, low + RESOLUTION), high - RESOLUTION)
                at = at if high - low > 2 * RESOLUTION else (low + high) / 2
            else:
                at = max(guess, low + stride) if met else min(guess, high - stride)
                stride *= 2
        return low, high

    def _careful(self, sparsity: float) -> SearchStep:
        """Try a sparsity with all care; budgets are compared at the first one."""
        outcome = self._passes.careful(self._prepared.goal(sparsity), self._plan)
        self._plan = outcome.plan
        step = self._judge.step(sparsity, outcome.model.result(), careful=True)
        self._steps.append(step)
        if step.meets:
            self._best = outcome
        return step

    def _moved(self, end: float, careful: SearchStep) -> float:
        """Where careful passes miss the goals, if they are to short ones everywhere as here."""
        short = sorted((s.sparsity, s.relative_error) for s in self._steps if not s.careful)
        sparsities, errors = zip(*short, strict=True)
        like = np.interp(careful.relative_error, np.maximum.accumulate(errors), sparsities)
        return end + careful.sparsity - float(like)

    def _failure(self, step: SearchStep) -> str:
        found = [f"relative error {step.relative_error:.4g}"]
        if step.top1_agreement is not None:
            found.append(f"top-1 agreement {step.top1_agreement:.1%}")
        if step.metric is not None:
            found.append(f"metric {step.metric:.5g} (dense {self._judge.metric_dense:.5g})")
        shown = ", ".join(found) + self._judge.told
        return (
            f"no sparsity was found with {goal_text(self._judge.goals)}: already at "
            f"{step.sparsity:.2%} zeros, held-out samples show {shown}; nothing was written"
        )
