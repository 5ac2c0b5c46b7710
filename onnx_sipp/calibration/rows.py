"""Arrays that are read row by row, and those of them that are in memory."""

from __future__ import annotations

__all__ = ["MemoryRows", "Rows", "as_one_row"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx_sipp.calibration.specs import Array


class Rows(Protocol):
    """An array whose rows, along its leading axis, are read in order."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements."""

    @property
    def where(self) -> str:
        """Where the array is, for messages."""

    def blocks(self, rows: int) -> Iterator[Array]:
        """Read from the start, so many rows at a time; an incomplete last block is left out."""


@dataclass(frozen=True, eq=False)
class MemoryRows:
    """Rows of an array in memory, or of a mapped file."""

    array: Array
    where: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements."""
        return self.array.dtype

    def blocks(self, rows: int) -> Iterator[Array]:
        """Read from the start, so many rows at a time; an incomplete last block is left out."""
        for start in range(0, len(self.array) // rows * rows, rows):
            yield self.array[start : start + rows]


@dataclass(frozen=True)
class _OneRow:
    """An array as the one row of an array with one axis more."""

    whole: Rows

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows.shape`."""
        return (1, *self.whole.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Rows.dtype`."""
        return self.whole.dtype

    @property
    def where(self) -> str:
        """See `Rows.where`."""
        return self.whole.where

    def blocks(self, rows: int) -> Iterator[Array]:
        """See `Rows.blocks`."""
        if rows == 1:
            for block in self.whole.blocks(self.whole.shape[0]):
                yield block[np.newaxis]


def as_one_row(whole: Rows) -> Rows:
    """Take an array for one sample that lacks the sample axis; it is still read only on demand."""
    if isinstance(whole, MemoryRows):
        return MemoryRows(whole.array[np.newaxis], whole.where)
    return _OneRow(whole)
