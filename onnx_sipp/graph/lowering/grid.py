"""Quantised storage: real values as levels of an integer type, ``(level - zero_point) * scale``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.node import NotPrunable

__all__ = ["Grid", "encode_float", "spread"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Grid:
    """The values that each element of a quantised weight can take.

    Attributes:
        scale: of every element, in the type that the runtime multiplies in.
        zero_point: int32, of every element; the level of zero.
        dtype: integer type of the levels.
        stored: True if levels lie in the file, False if real values do that QuantizeLinear rounds.
    """

    scale: Array
    zero_point: NDArray[np.int32]
    dtype: np.dtype[Any]
    stored: bool

    def mapped(self, change: Callable[[Array], Array]) -> Grid:
        """The grid of elements that were re-arranged."""
        return Grid(change(self.scale), change(self.zero_point), self.dtype, self.stored)

    def at(self, positions: NDArray[np.int64]) -> Grid:
        """The grid of some elements, by their places in the flat array."""
        return self.mapped(lambda values: values.ravel()[positions])

    def decode(self, elements: Array) -> Array:
        """Real values of stored elements, in the type of the scale."""
        levels = elements.astype(np.int32) if self.stored else self._levels(elements)
        return (levels - self.zero_point).astype(self.scale.dtype) * self.scale

    def encode(self, values: Array, dtype: np.dtype[Any]) -> Array:
        """Stored elements for real values: the nearest levels.

        A zero becomes the zero point. Another value never does: where it is nearest, the value gets
        the next level on its own side, or on the other where the type has none there.

        Args:
            values: real.
            dtype: of the stored elements.
        """
        low, high = self._limits()
        levels = self._levels(values)
        side = np.sign(values.astype(np.float64) * np.sign(self.scale.astype(np.float64)))
        next_level = self.zero_point + side.astype(np.int32)
        inside = (next_level >= low) & (next_level <= high)
        next_level = np.where(inside, next_level, self.zero_point - side.astype(np.int32))
        lost = (levels == self.zero_point) & (values != 0)
        levels = np.where(values == 0, self.zero_point, np.where(lost, next_level, levels))
        if self.stored:
            return levels.astype(dtype)
        return ((levels - self.zero_point).astype(self.scale.dtype) * self.scale).astype(dtype)

    def _limits(self) -> tuple[int, int]:
        info = ml_dtypes.iinfo(self.dtype)
        return int(info.min), int(info.max)

    def _levels(self, values: Array) -> NDArray[np.int32]:
        scale = self.scale.astype(np.float64)
        steps = np.divide(
            values.astype(np.float64), scale, out=np.zeros(values.shape), where=scale != 0
        )
        low, high = self._limits()
        return np.clip(np.rint(steps) + self.zero_point, low, high).astype(np.int32)


def encode_float(values: Array, dtype: np.dtype[Any]) -> Array:
    """Values in another floating-point type, clipped to its range; only a zero becomes zero."""
    info = ml_dtypes.finfo(dtype)
    largest = min(float(info.max), float(ml_dtypes.finfo(values.dtype).max))
    result = np.clip(values, -largest, largest).astype(dtype)
    lost = (result == 0) & (values != 0)
    if lost.any():
        tiny = np.sign(values).astype(dtype) * np.asarray(info.smallest_subnormal, dtype)
        result = np.where(lost, tiny, result)
    return result


def spread(values: Array, shape: tuple[int, ...], axis: int, block: int = 0) -> Array:
    """Quantisation parameters for every element.

    Args:
        values: one, one per index of an axis, one per block along it, or as many axes as the
            elements have, some of them of size 1.
        shape: of the elements.
        axis: the values belong to, unless there is one for all.
        block: length of the blocks, 0 for none.

    Raises:
        NotPrunable: they do not fit.
    """
    try:
        if values.size == 1 and not block:
            return np.broadcast_to(values.reshape(()), shape)
        if values.ndim == len(shape) and not block:
            return np.broadcast_to(values, shape)
        if block:
            repeated = np.repeat(values, block, axis).take(range(shape[axis]), axis)
            return np.broadcast_to(repeated, shape)
        return np.broadcast_to(
            values.reshape([-1] + [1] * (len(shape) - 1 - axis % len(shape))), shape
        )
    except (ValueError, IndexError) as error:
        raise NotPrunable(f"its quantisation parameters do not fit its shape: {error}") from error
