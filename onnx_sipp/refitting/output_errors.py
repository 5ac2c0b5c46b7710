"""How far the outputs of a changed model are from those of the dense one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.specs import Feed
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.refitting.batches import Batches

__all__ = ["OUTPUT_BATCHES", "OutputErrors"]

Tensor = NDArray[Any]

# As many batches do to compare whole models.
OUTPUT_BATCHES = 16


class OutputErrors:
    """The outputs of the dense model, to compare others with; it is run when they are needed.

    Args:
        dense: the model.
        execution: how models are run.
        batches: samples, of which the first batches are looked at, held-out ones before others.
    """

    def __init__(self, dense: Lowered, execution: Execution, batches: Batches) -> None:
        self._dense, self._execution, self._batches = dense, execution, batches
        self._known: Sequence[Mapping[str, Tensor]] = ()

    def of(self, model: Lowered, batches: int | None = None) -> float:
        """Relative squared error of a model's floating-point outputs, their mean.

        Args:
            model: with the same outputs as the dense one.
            batches: how many of the feeds to look at, None for all.
        """
        errors: dict[str, float] = {}
        powers: dict[str, float] = {}
        feeds = self._feeds[:batches]
        found = self._execution.outputs(model, feeds)
        for before, after in zip(self._outputs(feeds), found, strict=True):
            for name, old in before.items():
                if _comparable(old, after[name]):
                    error, power = _squares(old, after[name])
                    errors[name] = errors.get(name, 0.0) + error
                    powers[name] = powers.get(name, 0.0) + power
        shares = [error / powers[name] for name, error in errors.items() if powers[name] > 0]
        return float(np.mean(shares)) if shares else 0.0

    @cached_property
    def _feeds(self) -> list[Feed]:
        return list(islice(self._batches.feeds(held_out_first=True), OUTPUT_BATCHES))

    def _outputs(self, feeds: Sequence[Feed]) -> Sequence[Mapping[str, Tensor]]:
        """Those of the dense model for the first feeds."""
        known = self._known
        if missing := feeds[len(known) :]:
            found = self._execution.outputs(self._dense, missing)
            # Whole at any time: workers with several threads may ask for it in all of them.
            self._known = known = [*known, *map(dict, found)]
        return known[: len(feeds)]


def _comparable(old: Any, new: Any) -> bool:
    return isinstance(old, np.ndarray) and old.dtype.kind in "fV" and old.shape == new.shape


def _squares(old: Any, new: Any) -> tuple[float, float]:
    """Squared error and power, in float64; infinities that mask a score out are left aside."""
    finite = np.isfinite(old)
    before = np.where(finite, old, 0).astype(np.float64)
    error = np.where(finite, new, 0).astype(np.float64) - before
    return float(np.sum(error**2)), float(np.sum(before**2))
