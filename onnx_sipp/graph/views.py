"""The weight matrix as a view of the stored tensor."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["MatrixView", "contiguous"]

# Elements of the last axis that are copied together: a line of the cache holds about so many.
_STRIP = 16
_IN_CACHE = 1 << 18


@dataclass(frozen=True)
class MatrixView:
    """``W[group, out, fan_in]`` of a tensor in whatever layout its operator wants.

    Attributes:
        stored: shape of the tensor in the file.
        order: axes in the order group, out, fan-in.
        matrix: ``(groups, out per group, fan_in)``.
        split: shape of the stored tensor once an axis that mixes two of these is parted, which
            `order` then counts; ``()`` if none does.
        positions: places of a window, which lie innermost in the fan-in; 1 for matrix products.
    """

    stored: tuple[int, ...]
    order: tuple[int, ...]
    matrix: tuple[int, int, int]
    split: tuple[int, ...] = ()
    positions: int = 1

    @property
    def size(self) -> int:
        """Number of weights."""
        return prod(self.stored)

    @property
    def neuron_axis(self) -> int | None:
        """Axis of the stored tensor that counts the neurons; None if there is no single one."""
        groups, outs, _ = self.matrix
        if self.split:
            return None
        axes = [axis for axis in self.order if self.stored[axis] > 1]
        return axes[0] if groups == 1 and axes and self.stored[axes[0]] == outs else None

    def of_neurons(self, rows: slice) -> MatrixView:
        """How a range of the neurons is seen in its part of the tensor, cut along `neuron_axis`."""
        axis, count = self.neuron_axis, rows.stop - rows.start
        assert axis is not None
        stored = (*self.stored[:axis], count, *self.stored[axis + 1 :])
        return MatrixView(stored, self.order, (1, count, self.matrix[2]), positions=self.positions)

    def to_matrix(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """See the stored tensor as ``[group, out, fan_in]``."""
        axes = self.split or self.stored
        return tensor.reshape(axes).transpose(self.order).reshape(self.matrix)

    def to_stored(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """Undo `to_matrix`."""
        axes = self.split or self.stored
        permuted = matrix.reshape([axes[axis] for axis in self.order])
        ordered = permuted.transpose(np.argsort(self.order))
        if not ordered.flags.c_contiguous:
            ordered = contiguous(ordered, ordered.dtype)
        return ordered.reshape(self.stored)


def contiguous(values: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Copy values into C order.

    Numpy copies a transposed matrix column by column, and reads every line of the cache anew for
    each; where rows are a power of two apart, that takes four times as long.

    Args:
        values: any shape.
        dtype: of the result.
    """
    if values.nbytes <= _IN_CACHE or values.flags.c_contiguous or values.ndim < 2:
        return np.array(values, dtype, order="C")
    result = np.empty(values.shape, dtype)
    for start in range(0, values.shape[-1], _STRIP):
        strip = slice(start, start + _STRIP)
        result[..., strip] = values[..., strip]
    return result
