"""Sums of products of a layer's targets with its inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.statistics.gram import VERY_WIDE, suited
from onnx_sipp.statistics.multiplying import NUMPY, Multiplier
from onnx_sipp.statistics.sending import SentWithoutZeros
from onnx_sipp.unfolding.base import Float32

__all__ = ["Cross"]

Float = NDArray[np.floating]
Float64 = NDArray[np.float64]


class Cross(SentWithoutZeros):
    """Σ t aᵀ, Σ t and Σ t² of a layer's targets with its inputs.

    Args:
        groups: number of groups.
        outs: neurons per group.
        fan_in: inputs per group.
        multiplier: of wide inputs.
    """

    def __init__(self, groups: int, outs: int, fan_in: int, multiplier: Multiplier = NUMPY) -> None:
        self.multiplier = suited(multiplier, fan_in)
        self._shape = groups, outs, fan_in
        self._products: Float = self._empty()
        self.sums: Float64 = np.zeros((groups, outs))
        self.squares: Float64 = np.zeros((groups, outs))
        self.count = 0

    def _empty(self) -> Float:
        return np.zeros(self._shape, np.float32 if self._shape[2] > VERY_WIDE else np.float64)

    @property
    def products(self) -> Float:
        """Σ t aᵀ, ``[group, out, fan_in]``."""
        return self._products

    @property
    def largest(self) -> float:
        """The largest mean square of a target."""
        return float(self.squares.max(initial=0.0)) / max(1, self.count)

    def update(self, columns: Float32, targets: Float32) -> None:
        """Take in patches ``[group, fan_in, patches]`` and targets ``[group, out, patches]``."""
        self.count += columns.shape[2]
        with np.errstate(over="ignore", invalid="ignore"):  # see `largest`
            self._products += self.multiplier.hold(columns).times_transposed(targets)
        self.sums += targets.sum(axis=2, dtype=np.float64)
        self.squares += np.einsum("gop,gop->go", targets, targets, dtype=np.float64)

    def merge(self, other: Cross) -> None:
        """Take in what another accumulator of the same layer has seen."""
        if not other.count:
            return
        self.count += other.count
        with np.errstate(over="ignore", invalid="ignore"):
            self._products += other.products
        self.sums += other.sums
        self.squares += other.squares
