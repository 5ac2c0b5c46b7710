"""The (max, ×) matrix product, compiled."""

from __future__ import annotations

import numpy as np

from onnx_sipp.compiled import compiled
from onnx_sipp.unfolding import Float32

__all__ = ["max_product"]

# Rows of patches transposed at a time; together with four rows of the result they stay in cache.
_TILE = 64


def max_product(left: Float32, right: Float32, out: Float32) -> None:
    """Raise ``out[g, i, j]`` to ``max_p left[g, i, p] * right[g, j, p]`` where that is larger.

    Args:
        left: float32 ``[group, rows, patches]``, not negative.
        right: float32 ``[group, columns, patches]``, not negative.
        out: float32 ``[group, rows, columns]``, changed in place.
    """
    for group in range(out.shape[0]):
        _kernel(left[group], right[group], out[group])


@compiled()
def _kernel(left: Float32, right: Float32, out: Float32) -> None:
    rows, patches = left.shape
    columns = right.shape[0]
    tile = np.zeros((_TILE, columns), np.float32)
    for first in range(0, patches, _TILE):
        count = min(_TILE, patches - first)
        for j in range(columns):
            for p in range(count):
                tile[p, j] = right[j, first + p]
        for i in range(rows):
            for p in range(0, count, 4):
                # Past the last patch the factor is 0, which never raises the maximum.
                f0 = left[i, first + p]
                f1 = left[i, first + p + 1] if p + 1 < count else np.float32(0)
                f2 = left[i, first + p + 2] if p + 2 < count else np.float32(0)
                f3 = left[i, first + p + 3] if p + 3 < count else np.float32(0)
                for j in range(columns):
                    # Python's max() is one comparison, unlike numpy's with its care for NaN.
                    low = max(tile[p, j] * f0, tile[p + 1, j] * f1)
                    high = max(tile[p + 2, j] * f2, tile[p + 3, j] * f3)
                    out[i, j] = max(out[i, j], low, high)
