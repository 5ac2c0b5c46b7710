"""Refit: change the kept weights so that they make up for the dropped ones.

For every neuron, minimise E(t − ŵᵀa)² + λ Σ h_j (ŵ_j − w_j)² over the weights that the mask keeps,
where h is what λ is relative to (`Regression.scale`) and w the weights before. Preconditioned
conjugate gradients on the masked normal equations solve it: each step is one product of the weights
with H, nothing is inverted, and a singular H does no harm. Neurons are independent, so they are
worked on in blocks that stay in cache, several blocks at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.selection import kept_only
from onnx_sipp.statistics.gram import WIDE
from onnx_sipp.statistics.regression import Regression
from onnx_sipp.threads import side_by_side

__all__ = ["Solution", "refit"]

Float = NDArray[np.floating]
Float64 = NDArray[np.float64]
Product = Callable[[Float], Float]

_BLOCK_ELEMENTS = 1 << 19


@dataclass(frozen=True)
class Solution:
    """Refitted weights.

    Attributes:
        weight: ``[group, out, fan_in]``, zero where not kept; float32 where the fan-in is
            wide, else float64.
        errors: E(t − ŵᵀa − best bias)² of each neuron, ``[group, out]``.
        wishes: what each dropped weight would become if it came back alone, zero where kept; None
            if not asked for.
    """

    weight: Float
    errors: Float64
    wishes: Float | None = None


def refit(
    problem: Regression,
    weight: Float,
    kept: NDArray[np.bool_],
    *,
    damping: float | Float64,
    steps: int = 20,
    start: Float | None = None,
    tolerance: float = 1e-4,
    threads: int = 1,
    with_wishes: bool = False,
) -> Solution:
    """Solve the masked least squares for all neurons of a layer.

    Args:
        problem: H and B of the layer.
        weight: ``[group, out, fan_in]``, what damping pulls towards.
        kept: same shape; weights outside stay zero.
        damping: λ, see `Regression.scale`; one, or ``[out]``.
        steps: most conjugate gradient steps.
        start: first guess; ``weight`` if None.
        tolerance: stop when every residual of a block has shrunk by this factor.
        threads: blocks worked on at the same time.
        with_wishes: also follow the gradient of the dropped weights, which costs no product.
    """
    dtype = np.float32 if weight.shape[2] >= WIDE else np.float64
    result, errors = np.zeros(weight.shape, dtype), problem.power.copy()
    wishes = np.zeros(weight.shape, dtype) if with_wishes else None

    def solve(block: _Block) -> None:
        at = block.group, block.rows
        shift = block.damping * block.scale
        diagonal = np.maximum(block.diagonal + shift, np.finfo(dtype).tiny)
        guess = (weight if start is None else start)[at]
        found, change, gradient = _solve(
            block.times_h, problem.cross[at].astype(dtype), weight[at].astype(dtype),
            kept[at].astype(dtype), guess.astype(dtype), diagonal.astype(dtype),
            shift.astype(dtype), steps, tolerance, with_gradient=with_wishes,
        )  # fmt: skip
        result[at] = found
        errors[at] += change
        if wishes is not None:
            wishes[at] = kept_only(gradient / diagonal, ~kept[at])

    side_by_side(solve, _blocks(problem, weight, damping, dtype), threads)
    return Solution(result, np.maximum(errors, 0), wishes)


@dataclass(frozen=True)
class _Block:
    """Neurons that are solved for together.

    Attributes:
        group: that they are in.
        rows: their places in the group.
        times_h: multiplies by H.
        diagonal: of H.
        damping: λ, one for all neurons or one for each of them.
        scale: h.
    """

    group: int
    rows: slice
    times_h: Product
    diagonal: Float64
    damping: Float64
    scale: Float64


def _blocks(
    problem: Regression,
    weight: Float,
    damping: float | Float64,
    dtype: type[np.floating],
) -> list[_Block]:
    """Part the neurons of every group into blocks."""
    _, outs, fan_in = weight.shape
    # Pairs of blocks, for two threads; the same ones however many threads there are.
    pairs = -(-outs * fan_in // (2 * _BLOCK_ELEMENTS))
    size = -(-outs // (2 * pairs))
    blocks = []
    dampings = np.broadcast_to(np.asarray(damping, np.float64), outs)[:, None]
    alike = bool(np.all(dampings == dampings[0]))
    scales = problem.scale(weight)
    for group, diagonal in enumerate(problem.diagonal):
        times_h = problem.moments.products_with(group, dtype)
        for first in range(0, outs, size):
            rows = slice(first, first + size)
            own = dampings[:1] if alike else dampings[rows]
            blocks.append(_Block(group, rows, times_h, diagonal, own, scales[group]))
    return blocks


def _solve(
    times_h: Product,
    cross: Float,
    weight: Float,
    mask: Float,
    x: Float,
    diagonal: Float,
    shift: Float,
    steps: int,
    tolerance: float,
    *,
    with_gradient: bool,
) -> tuple[Float, Float64, Float]:
    """Conjugate gradients on ``[out, fan_in]``.

    Returns:
        ŵ; ŵᵀHŵ − 2 ŵᵀb, from the last residual; and b + λh(w − ŵ) − Hŵ, also outside the mask if
        that is asked for.
    """
    x = mask * x
    target = mask * (cross + shift * weight)
    gradient = cross + shift * (weight - x) - times_h(x)
    residual = mask * gradient
    z = residual / diagonal
    direction = z.copy()
    rho = _dot(residual, z)
    goal = tolerance**2 * _dot(target, target / diagonal)
    for _ in range(steps):
        if np.all(rho <= goal):
            break
        product = times_h(direction)
        product += shift * direction
        # The direction is zero outside the mask, so what the product has there does no harm here.
        step = _ratio(rho, _dot(direction, product))
        x += step * direction
        product *= step
        if with_gradient:
            gradient -= product
        product *= mask
        residual -= product
        np.divide(residual, diagonal, out=z)
        before, rho = rho, _dot(residual, z)
        direction *= _ratio(rho, before)
        direction += z
    # On the mask, Hŵ = b + λh(w − ŵ) − residual.
    change = np.einsum("of,of->o", x, shift * (weight - x) - residual - cross, dtype=np.float64)
    return x, change, gradient


def _dot(a: Float, b: Float) -> Float:
    result: Float = np.einsum("of,of->o", a, b)[:, None]
    return result


def _ratio(a: Float, b: Float) -> Float:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
