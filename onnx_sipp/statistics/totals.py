"""Sums over patches as dot products: in float32, of a piece at a time, which is far quicker."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["square_sums", "sums"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def sums(values: Float32) -> Float64:
    """Σ v over the last axis; float64, as pieces are added up in it."""
    with np.errstate(over="ignore", invalid="ignore"):
        found: Float32 = values @ np.ones(values.shape[-1], values.dtype)
    if not np.isfinite(found).all():  # too large for float32, but not for float64
        return np.asarray(values.sum(axis=-1, dtype=np.float64))
    return found.astype(np.float64)


def square_sums(values: Float32) -> Float64:
    """Σ v² over the last axis, likewise."""
    with np.errstate(over="ignore", invalid="ignore"):
        # A dot product per row: its float32 sums are kept short, unlike those of einsum.
        found: Float32 = (values[..., None, :] @ values[..., :, None])[..., 0, 0]
    if not np.isfinite(found).all():
        wide: Float64 = np.einsum("...n,...n->...", values, values, dtype=np.float64)
        return wide
    return found.astype(np.float64)
