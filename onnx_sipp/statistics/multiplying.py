"""Who multiplies matrices: numpy, or something else that is handed in and does it elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUMPY", "Held", "Multiplier", "product_of_large"]

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


def product_of_large(multiplier: Multiplier, x: Float, matrix: Float) -> Float:
    """X Bᵀ, in float64 where float32 has no room for it.

    Args:
        multiplier: of float32.
        x: ``[..., m, n]``, float32.
        matrix: B, ``[..., k, n]``, float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        result = multiplier.hold(matrix).times_transposed(x)
    if np.isfinite(result).all():
        return result
    return NUMPY.hold(matrix.astype(np.float64)).times_transposed(x.astype(np.float64))
