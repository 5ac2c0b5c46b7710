"""The (max, ×) matrix product, compiled."""

from __future__ import annotations

import numpy as np

from onnx_sipp.compiled import compiled
from onnx_sipp.unfolding.base import Float32

__all__ = ["max_product"]

# Rows of patches transposed at a time; together with four rows of the result they stay in cache.
_TILE = 64


def max_product(left: Float32, right: Float32, weight: Float32, out: Float32) -> None:
    """Raise ``out[g, i, j]`` to ``max_p left[g, h, p] * right[g, j, p]`` where that is larger.

    The row h of the left factor is i where the weight is positive, and rows + i where it is not: a
    weight is in one sign half only, so that the product for the other one is not needed.

    Args:
        left: float32 ``[group, 2 * rows, patches]``, not negative.
        right: float32 ``[group, columns, patches]``, not negative.
        weight: float32 ``[group, rows, columns]``.
        out: the same, changed in place.
    """
    for group in range(out.shape[0]):
        _kernel(left[group], right[group], weight[group], out[group])


@compiled
def _kernel(left: Float32, right: Float32, weight: Float32, out: Float32) -> None:
    rows, columns = weight.shape
    patches = right.shape[1]
    # Past the last patch factors are 0, which never raises the maximum.
    tile = np.zeros((_TILE, columns), np.float32)
    factors = np.zeros((2, _TILE), np.float32)
    for first in range(0, patches, _TILE):
        count = min(_TILE, patches - first)
        for j in range(columns):
            for p in range(count):
                tile[p, j] = right[j, first + p]
        for i in range(rows):
            for p in range(_TILE):
                factors[0, p] = left[i, first + p] if p < count else np.float32(0)
                factors[1, p] = left[rows + i, first + p] if p < count else np.float32(0)
            for p in range(0, count, 4):
                a0, a1, a2, a3 = (
                    factors[0, p],
                    factors[0, p + 1],
                    factors[0, p + 2],
                    factors[0, p + 3],
                )
                b0, b1, b2, b3 = (
                    factors[1, p],
                    factors[1, p + 1],
                    factors[1, p + 2],
                    factors[1, p + 3],
                )
                for j in range(columns):
                    positive = weight[i, j] > 0
                    # Python's max() is one comparison, unlike numpy's with its care for NaN.
                    low = max(
                        tile[p, j] * (a0 if positive else b0),
                        tile[p + 1, j] * (a1 if positive else b1),
                    )
                    high = max(
                        tile[p + 2, j] * (a2 if positive else b2),
                        tile[p + 3, j] * (a3 if positive else b3),
                    )
                    out[i, j] = max(out[i, j], low, high)
