"""How far the outputs of a changed model are from those of the dense one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.specs import Feed
from onnx_sipp.graph.lowering import Lowered

__all__ = ["OUTPUT_BATCHES", "OutputErrors"]

# As many batches do to compare whole models.
OUTPUT_BATCHES = 16


class OutputErrors:
    """The outputs of the dense model, to compare others with.

    Args:
        dense: the model.
        execution: how models are run.
        feeds: what it is run on.
    """

    def __init__(self, dense: Lowered, execution: Execution, feeds: Sequence[Feed]) -> None:
        self._execution, self._feeds = execution, feeds
        self._dense = [dict(found) for found in execution.outputs(dense, feeds)]

    def of(self, model: Lowered, batches: int | None = None) -> float:
        """Relative squared error of a model's floating-point outputs, their mean.

        Args:
            model: with the same outputs as the dense one.
            batches: how many of the feeds to look at, None for all.
        """
        errors: dict[str, float] = {}
        powers: dict[str, float] = {}
        found = self._execution.outputs(model, self._feeds[:batches])
        for before, after in zip(self._dense, found, strict=False):
            for name, old in before.items():
                if _comparable(old, after[name]):
                    error, power = _squares(old, after[name])
                    errors[name] = errors.get(name, 0.0) + error
                    powers[name] = powers.get(name, 0.0) + power
        shares = [error / powers[name] for name, error in errors.items() if powers[name] > 0]
        return float(np.mean(shares)) if shares else 0.0


def _comparable(old: Any, new: Any) -> bool:
    return isinstance(old, np.ndarray) and old.dtype.kind in "fV" and old.shape == new.shape


def _squares(old: Any, new: Any) -> tuple[float, float]:
    """Squared error and power, in float64; infinities that mask a score out are left aside."""
    finite = np.isfinite(old)
    before = np.where(finite, old, 0).astype(np.float64)
    error = np.where(finite, new, 0).astype(np.float64) - before
    return float(np.sum(error**2)), float(np.sum(before**2))
