"""Refit: change the kept weights so that they make up for the dropped ones.

For every neuron, minimise E(t − ŵᵀa)² + λ h ‖ŵ − w‖² over the weights that the mask keeps, where h
is the mean diagonal of H and w the weights before. All neurons of a layer are solved at once by
preconditioned conjugate gradients on the masked normal equations: each step is one product of the
weight matrix with H, nothing is inverted, and a singular H does no harm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.statistics.gram import Regression

__all__ = ["refit"]

Float64 = NDArray[np.float64]


def refit(
    problem: Regression,
    weight: NDArray[np.floating],
    kept: NDArray[np.bool_],
    *,
    damping: float,
    steps: int = 20,
    start: NDArray[np.floating] | None = None,
    tolerance: float = 1e-4,
) -> Float64:
    """Solve the masked least squares for all neurons of a layer.

    Args:
        problem: H and B of the layer.
        weight: ``[group, out, fan_in]``, what damping pulls towards.
        kept: same shape; weights outside stay zero.
        damping: λ, relative to the mean diagonal of H.
        steps: most conjugate gradient steps.
        start: first guess; ``weight`` if None.
        tolerance: stop when every residual has shrunk by this factor.

    Returns:
        float64 weights, same shape, zero where not kept.
    """
    mask = kept.astype(np.float64)
    diagonal = np.einsum("gff->gf", problem.gram)
    shift = damping * diagonal.mean(axis=1)[:, None, None]
    # A fan-in that is dead throughout leaves H = 0: then nothing is to be solved.
    shift = np.where(shift > 0, shift, 1.0)
    precondition = mask / (diagonal[:, None, :] + shift)
    target = problem.cross + shift * weight
    x = mask * (weight if start is None else start)
    residual = mask * (target - _apply(problem.gram, shift, x))
    z = precondition * residual
    direction = z.copy()
    rho = _dot(residual, z)
    goal = tolerance**2 * np.maximum(_dot(mask * target, precondition * target), 1e-300)
    for _ in range(steps):
        if np.all(rho <= goal):
            break
        product = mask * _apply(problem.gram, shift, direction)
        step = _ratio(rho, _dot(direction, product))
        x += step * direction
        residual -= step * product
        z = precondition * residual
        rho, before = _dot(residual, z), rho
        direction = z + _ratio(rho, before) * direction
    return x


def _apply(gram: Float64, shift: Float64, x: Float64) -> Float64:
    result: Float64 = x @ gram + shift * x
    return result


def _dot(a: Float64, b: Float64) -> Float64:
    result: Float64 = np.einsum("gof,gof->go", a, b)[..., None]
    return result


def _ratio(a: Float64, b: Float64) -> Float64:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
