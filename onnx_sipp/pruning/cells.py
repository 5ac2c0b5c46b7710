"""A pattern on the matrix of one weight: its cells, in which weights go together or compete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.patterns import Blocks, NofM
from onnx_sipp.pruning.selection import Mask, apportion, top, top_rows

__all__ = ["Cells", "alive_units", "per_unit", "units"]

Float = NDArray[np.floating]
Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True)
class Cells:
    """Cells of a matrix ``[group, out, fan_in]``, whose fan-in is ``(channel, position)``.

    A cell spans neighbouring neurons and neighbouring input channels at one position of the window
    of a convolution (a matrix product has one position).

    Attributes:
        rows: neurons of a cell.
        columns: input channels of a cell.
        positions: places of the window.
        kept: how many weights of a cell may stay; 0 if it stays or goes as a whole.
    """

    rows: int
    columns: int
    positions: int
    kept: int = 0

    @classmethod
    def of(cls, pattern: NofM | Blocks, positions: int) -> Cells:
        """See a pattern on a weight whose window has so many places."""
        if isinstance(pattern, NofM):
            return cls(1, pattern.of, positions, pattern.kept)
        return cls(pattern.rows, pattern.columns, positions)

    @property
    def unit(self) -> int:
        """Weights that can only stay or go together."""
        return 1 if self.kept else self.rows * self.columns

    def gathered(self, values: NDArray[Value]) -> NDArray[Value]:
        """See a matrix cell by cell.

        Args:
            values: ``[group, out, fan_in]``.

        Returns:
            ``[group, out / rows, cells, rows · columns]``.
        """
        groups, outs, fan_in = values.shape
        channels = fan_in // self.positions
        shape = (
            groups, outs // self.rows, self.rows,
            channels // self.columns, self.columns, self.positions,
        )  # fmt: skip
        parts = values.reshape(shape).transpose(0, 1, 5, 3, 2, 4)
        return parts.reshape(*parts.shape[:2], -1, self.rows * self.columns)

    def spread(self, cells: NDArray[Value]) -> NDArray[Value]:
        """Undo `gathered`."""
        groups, bands, count, _ = cells.shape
        shape = (
            groups, bands, self.positions, count // self.positions, self.rows, self.columns,
        )  # fmt: skip
        parts = cells.reshape(shape).transpose(0, 1, 4, 3, 5, 2)
        return parts.reshape(groups, bands * self.rows, -1)

    def places(self, fan_in: int) -> NDArray[np.int64]:
        """Inputs of each cell of a band of neurons, ``[cells, columns]``."""
        inputs = np.arange(fan_in).reshape(-1, self.columns, self.positions)
        return inputs.transpose(2, 0, 1).reshape(-1, self.columns)

    def summed(self, values: Float) -> Float:
        """Sums over the cells, ``[group, out / rows, cells]``."""
        result: Float = self.gathered(values).sum(axis=-1)
        return result

    def whole(self, chosen: Mask) -> Mask:
        """All weights of the chosen cells.

        Args:
            chosen: ``[group, out / rows, cells]``.
        """
        size = self.rows * self.columns
        return self.spread(np.broadcast_to(chosen[..., None], (*chosen.shape, size)))

    def best(self, score: Float, magnitude: Float, keep: int, *, by_band: bool = False) -> Mask:
        """Keep what scores highest, as the pattern allows.

        Args:
            score: ``[group, out, fan_in]``, not negative; or per cell where it goes as a whole.
            magnitude: |weight|; zeros are never kept.
            keep: how many units stay. With N:M this is rounded to so many of each cell, at least N.
            by_band: where cells go as a whole, keep the same share in every band of neurons.
        """
        if self.kept:
            count = self.count_in_cell(keep, score.size)
            cells, sizes = self.gathered(score), self.gathered(magnitude)
            counts = np.full(cells.shape[:-1], count, np.int64)
            return self.spread(top_rows(cells, sizes, counts))
        sizes = self.summed(magnitude)
        cells = score if score.shape != magnitude.shape else self.summed(score)
        if by_band:
            alive = np.count_nonzero(sizes, axis=-1).ravel()
            counts = apportion(np.full(alive.size, sizes.shape[-1]), alive, keep)
            chosen = top_rows(cells, sizes, counts.reshape(sizes.shape[:2]))
        else:
            chosen = top(cells, sizes, keep)
        return self.whole(chosen) & (magnitude > 0)

    def replaceable(self, idle: Mask, weight: Float) -> Mask:
        """Those of some weights whose places others can take: whole cells, or weights of a cell.

        Args:
            idle: ``[group, out, fan_in]``.
            weight: same shape; zeros take no place.
        """
        if not self.kept:
            return self.whole(np.all(self.gathered(idle), axis=-1))
        others = self.gathered((weight != 0) & ~idle).sum(axis=-1)
        return idle & self.whole(others >= self.kept)

    def count_in_cell(self, keep: int, size: int) -> int:
        """How many weights of each cell stay where so many of a weight are to, at least N."""
        return min(self.columns, max(self.kept, round(self.columns * keep / size)))


def alive_units(cells: Cells | None, weight: Float | Mask) -> int:
    """What can be kept of a weight: of single weights or of whole cells, those not all zero."""
    if cells is None or cells.kept:
        return int(np.count_nonzero(weight))
    return int(np.count_nonzero(cells.gathered(weight).any(axis=-1)))


def units(cells: Cells | None, size: int) -> int:
    """How many parts of a weight of this size stay or go by themselves."""
    return size if cells is None else size // cells.unit


def per_unit(cells: Cells | None, score: Float, weight: Float) -> tuple[Float, Float]:
    """Scores and magnitudes of what stays or goes by itself; a whole cell has those of its sum."""
    if cells is None or cells.kept:
        return score, np.abs(weight)
    return cells.summed(score), cells.summed(np.abs(weight))
