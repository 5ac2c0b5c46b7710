"""Second moments of a layer's inputs, and the output error that a change of weights causes."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.statistics.totals import square_sums
from onnx_sipp.unfolding.base import Patches

__all__ = ["Energies", "OutputError", "SecondMoment"]

Float64 = NDArray[np.float64]


class SecondMoment:
    """Mean square of every input of a layer, streamed over patches.

    Args:
        groups: number of groups.
        fan_in: inputs per group.
    """

    def __init__(self, groups: int, fan_in: int) -> None:
        self._sum: Float64 = np.zeros((groups, fan_in))
        self._count = 0

    def update(self, patches: Patches) -> None:
        """Take in the patches of some samples."""
        columns = patches.columns
        self._sum += square_sums(columns)
        self._count += columns.shape[2]

    def merge(self, other: SecondMoment) -> None:
        """Take in what another accumulator of the same layer has seen."""
        self._sum += other._sum
        self._count += other._count

    def result(self) -> Float64:
        """E[a_j²], float64 ``[group, fan_in]``; zeros if nothing was seen."""
        return self._sum / max(1, self._count)


class OutputError:
    """Relative error of ``z = W a`` when W and the bias change: ‖Δz‖ / ‖z‖ over all patches.

    Args:
        weight: ``[group, out, fan_in]`` before, float32 or wider.
        changed: same shape, after.
        bias_change: ``[group, out]``, what the bias gained; None for nothing.
    """

    def __init__(
        self,
        weight: NDArray[np.floating],
        changed: NDArray[np.floating],
        bias_change: NDArray[np.floating] | None = None,
    ) -> None:
        self._weight = weight.astype(np.float32, copy=False)
        self._delta = (changed - weight).astype(np.float32, copy=False)
        shift = np.zeros(weight.shape[:2]) if bias_change is None else bias_change
        self._shift = shift.astype(np.float32)[..., None]
        self.energies = Energies()

    def update(self, patches: Patches) -> None:
        """Take in the patches of some samples."""
        self.energies.seen = self.energies.seen or patches.columns.shape[2] > 0
        with np.errstate(over="ignore", invalid="ignore"):
            self.energies.error += _energy(self._delta @ patches.columns + self._shift)
            self.energies.power += _energy(self._weight @ patches.columns)


@dataclass
class Energies:
    """Sums of squares over patches and neurons.

    Attributes:
        error: of the change.
        power: of what was there before.
        seen: whether there was any patch.
    """

    error: float = 0.0
    power: float = 0.0
    seen: bool = False

    def merge(self, other: Energies) -> None:
        """Take in other neurons of the same layer."""
        self.error += other.error
        self.power += other.power
        self.seen = self.seen or other.seen

    @property
    def ratio(self) -> float:
        """The relative error; 0 where nothing came out before and now, NaN if nothing went in."""
        if not self.seen:
            return float("nan")
        if self.power > 0:
            return float(np.sqrt(self.error / self.power))
        return 0.0 if self.error == 0 else float("inf")


def _energy(values: NDArray[np.float32]) -> float:
    flat = values.ravel()
    # Blocks keep float32 dot products short; their sum is float64.
    total = sum(float(np.dot(b, b)) for b in np.array_split(flat, max(1, flat.size >> 12)))
    if isfinite(total):
        return float(total)
    wide = flat.astype(np.float64)  # has room for the square of any float32
    return float(np.dot(wide, wide))
