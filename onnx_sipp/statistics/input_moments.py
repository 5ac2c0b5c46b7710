"""H = E[a aᵀ] of the inputs of a layer, in whatever form it takes least to multiply with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import DTypeLike, NDArray

from onnx_sipp.statistics.multiplying import NUMPY, Multiplier
from onnx_sipp.unfolding.base import Float32

__all__ = ["ROWS", "Moments", "add_outer"]

Float = NDArray[np.floating]
Float64 = NDArray[np.float64]

# Of a large matrix, worked on at a time.
ROWS = 1024


@dataclass(frozen=True, eq=False)
class Moments:
    """H = E[a aᵀ] of every group, as a matrix or as a product.

    Attributes:
        matrix: ``[group, fan_in, fan_in]``; or
        factor: float32 ``[group, fan_in, n]``, whose product with its transpose it is; or
        isotropic: ``(groups, fan_in)`` of identities.
        multiplier: of float32 matrices with it.
    """

    matrix: Float | None = None
    factor: Float32 | None = None
    isotropic: tuple[int, int] = (0, 0)
    multiplier: Multiplier = NUMPY

    @property
    def dense(self) -> Float:
        """``[group, fan_in, fan_in]``; made if need be."""
        if self.matrix is not None:
            return self.matrix
        if self.factor is not None:
            return self.factor @ self.factor.transpose(0, 2, 1)
        groups, fan_in = self.isotropic
        return np.repeat(np.eye(fan_in)[None], groups, axis=0)

    @cached_property
    def diagonal(self) -> Float64:
        """``[group, fan_in]``."""
        if self.isotropic != (0, 0):
            return np.ones(self.isotropic)
        result: Float64
        if self.factor is not None:
            result = np.einsum("gfn,gfn->gf", self.factor, self.factor, dtype=np.float64)
        else:
            result = np.einsum("gff->gf", self.dense).astype(np.float64)
        return result

    def inverse_diagonal(self, shift: Float64) -> Float64:
        """Diagonal of (H + S)⁻¹ with a diagonal S, ``[group, fan_in]``.

        A factor F of few columns takes a small inverse: by Woodbury it is
        S⁻¹ − G (I + GᵀF)⁻¹ Gᵀ with G = S⁻¹ F.

        Args:
            shift: diagonal of S, ``[group, fan_in]``, positive.
        """
        result: Float64
        if self.isotropic != (0, 0):
            return 1 / (1 + shift)
        if self.factor is None or self.factor.shape[2] >= self.factor.shape[1]:
            h = self.dense
            inverse = np.linalg.inv(h + shift[:, None, :] * np.eye(h.shape[-1]))
            result = np.einsum("gff->gf", inverse).copy()
            return result
        factor = self.factor.astype(np.float64)
        scaled = factor / shift[..., None]
        inner = np.linalg.inv(factor.transpose(0, 2, 1) @ scaled + np.eye(factor.shape[2]))
        result = 1 / shift - np.einsum("gfn,gfn->gf", scaled @ inner, scaled)
        return result

    def with_means(self, means: Float64) -> Moments:
        """H + E[a] E[a]ᵀ, from a centred H and ``[group, fan_in]``."""
        if self.factor is not None:
            column = means[..., None].astype(self.factor.dtype)
            factor = np.concatenate([self.factor, column], axis=2)
            return Moments(factor=factor, multiplier=self.multiplier)
        matrix = self.dense.copy()
        add_outer(matrix, means, 1)
        return Moments(matrix=matrix, multiplier=self.multiplier)

    def product(self, group: int, x: Float) -> Float:
        """X H of a group, in the type of ``x``: float32 or float64."""
        return self.products_with(group, x.dtype)(x)

    def products_with(self, group: int, dtype: DTypeLike) -> Callable[[Float], Float]:
        """What gives X H of a group for many X ``[n, fan_in]``, all float32 or all float64."""
        if self.isotropic != (0, 0):
            return np.copy
        narrow = dtype == np.float32
        multiplier = self.multiplier if narrow else NUMPY
        if self.factor is not None:
            held = multiplier.hold(self.factor[group])
            return lambda x: held.times_transposed(held.times(x))
        return multiplier.hold((self._narrow if narrow else self.dense)[group]).times

    @cached_property
    def _narrow(self) -> Float32:
        return self.dense.astype(np.float32, copy=False)


def add_outer(h: Float, mean: Float64, sign: int) -> None:
    """Add ± m mᵀ in place, some rows at a time."""
    for matrix, m in zip(h, mean, strict=True):
        for a in range(0, len(m), ROWS):
            matrix[a : a + ROWS] += (sign * m[a : a + ROWS, None] * m).astype(h.dtype)
