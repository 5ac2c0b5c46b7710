"""Who multiplies matrices: numpy, or something else that is handed in and does it elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUMPY", "Held", "Multiplier"]

Float = NDArray[np.floating]


class Held(Protocol):
    """A matrix B ``[..., k, n]`` that is where products with it are made."""

    def times(self, x: Float) -> Float:
        """X B, ``[..., m, n]``, for X ``[..., m, k]``; a new array."""

    def times_transposed(self, x: Float) -> Float:
        """X Bᵀ, ``[..., m, k]``, for X ``[..., m, n]``; a new array."""


class Multiplier(Protocol):
    """Multiplies matrices; may be used by several threads at a time."""

    def hold(self, matrix: Float) -> Held:
        """Get a matrix ready for several products; it must not change while they are made."""


@dataclass(frozen=True, eq=False)
class _InMemory:
    matrix: Float

    def times(self, x: Float) -> Float:
        """See `Held.times`."""
        result: Float = x @ self.matrix
        return result

    def times_transposed(self, x: Float) -> Float:
        """See `Held.times_transposed`."""
        result: Float = x @ self.matrix.swapaxes(-1, -2)
        return result


class _Numpy:
    """Multiplies in the type of the matrices, on the CPU."""

    def hold(self, matrix: Float) -> Held:
        """See `Multiplier.hold`."""
        return _InMemory(matrix)


NUMPY: Multiplier = _Numpy()
