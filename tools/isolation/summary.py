"""Runs of a task, put together over the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isolation.study import DENSE, INITS, Run

__all__ = ["Summary", "summaries"]


@dataclass(frozen=True)
class Summary:
    """What became of one task.

    Attributes:
        task: its name.
        runs: of it.
    """

    task: str
    runs: Sequence[Run]

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len({run.seed for run in self.runs})

    @property
    def methods(self) -> list[str]:
        """Those that prune."""
        return list(dict.fromkeys(run.method for run in self.runs if run.method != DENSE))

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Weights that were looked at, and methods; those of trained weights first."""
        return [
            (init, method)
            for init in (*reversed(INITS), "")
            for method in self.methods
            if self.of(init, method)
        ]

    @property
    def layers(self) -> list[str]:
        """Names of the layers."""
        return list(self.runs[0].kept)

    def of(self, init: str, method: str, sparsity: float | None = None) -> list[Run]:
        """Runs that are alike, one per seed and sparsity."""
        return [
            run
            for run in self.runs
            if (run.init, run.method) == (init, method) and sparsity in (None, run.sparsity)
        ]

    def mean(self, init: str, method: str, sparsity: float) -> float:
        """Mean accuracy."""
        return float(np.mean([run.accuracy for run in self.of(init, method, sparsity)]))

    def told(self, init: str, method: str, sparsity: float) -> str:
        """Mean ± standard deviation of the accuracy, in per cent."""
        found = 100 * np.array([run.accuracy for run in self.of(init, method, sparsity)])
        return f"{found.mean():.1f} ± {found.std(ddof=1):.1f}"

    def emptied(self, init: str, method: str, sparsity: float) -> int:
        """Runs in which a layer lost all its weights."""
        return sum(min(run.kept.values()) == 0 for run in self.of(init, method, sparsity))

    def kept(self, init: str, method: str, sparsity: float, layer: str) -> float:
        """Share of a layer's weights that stayed, the mean."""
        return float(np.mean([run.kept[layer] for run in self.of(init, method, sparsity)]))


def summaries(runs: Sequence[Run]) -> list[Summary]:
    """One per task, in the order in which they came."""
    names = dict.fromkeys(run.task for run in runs)
    return [Summary(name, [run for run in runs if run.task == name]) for name in names]
