"""Sums of products of a layer's targets with its inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.slabs import ranges
from onnx_sipp.statistics.gram import VERY_WIDE, suited
from onnx_sipp.statistics.multiplying import NUMPY, Multiplier
from onnx_sipp.statistics.sending import SentWithoutZeros
from onnx_sipp.statistics.totals import square_sums, sums
from onnx_sipp.threads import side_by_side
from onnx_sipp.unfolding.base import Float32

__all__ = ["Cross"]

# Neurons whose products are made together where they are parted among threads.
_NEURONS = 256

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

    def update(self, columns: Float32, targets: Float32, threads: int | None = None) -> None:
        """Take in patches and what comes out for them.

        Args:
            columns: ``[group, fan_in, patches]``.
            targets: ``[group, out, patches]``.
            threads: to part the neurons among; None to take all of them at once.
        """
        self.count += columns.shape[2]
        held = self.multiplier.hold(columns)

        def add(neurons: slice) -> None:
            with np.errstate(over="ignore", invalid="ignore"):  # see `largest`
                self._products[:, neurons] += held.times_transposed(targets[:, neurons])

        if threads is None:
            add(slice(None))
        else:
            side_by_side(add, ranges(targets.shape[1], 1, _NEURONS), threads)
        self.sums += sums(targets)
        self.squares += square_sums(targets)

    def merge(self, other: Cross) -> None:
        """Take in what another accumulator of the same layer has seen."""
        if not other.count:
            return
        self.count += other.count
        with np.errstate(over="ignore", invalid="ignore"):
            self._products += other.products
        self.sums += other.sums
        self.squares += other.squares
