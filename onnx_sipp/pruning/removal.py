"""In what order the weights of a layer can go, and what the removal of each costs.

Both orders account for the refit: a cost is the rise of the layer's squared output error after the
remaining weights have been refitted. Costs are in units of that error, so that they compare across
neurons, and summed over layers they make the curve of error against kept weights.

- `greedy.greedy_costs`: per neuron, remove the weight whose removal costs least, refit, repeat.
  Cubic in the fan-in for every neuron.
- `gradual_costs`: remove the lowest |w|·rms(a) of the whole layer in a few steps, with a refit of
  all neurons at once after each. A handful of matrix products per step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.compensation import refit
from onnx_sipp.pruning.selection import top
from onnx_sipp.statistics.gram import Regression

__all__ = ["gradual_costs", "greedy_work"]

Float = NDArray[np.floating]
Float32 = NDArray[np.float32]

# Kept fractions that the gradual order passes through.
_STEPS = (0.85, 0.7, 0.56, 0.44, 0.34, 0.26, 0.2, 0.15, 0.11, 0.08, 0.055, 0.035)


def greedy_work(shape: tuple[int, ...]) -> float:
    """Multiplications that the greedy order takes for ``[group, out, fan_in]``."""
    groups, outs, fan_in = shape
    return groups * outs * fan_in**3 / 3


def gradual_costs(problem: Regression, weight: Float, *, damping: float, steps: int = 8) -> Float32:
    """Cost of removing each weight when they go in a few steps, the whole layer at once.

    Args:
        problem: H and B of the layer.
        weight: ``[group, out, fan_in]``; zeros in it stay zero.
        damping: relative to the mean diagonal of H.
        steps: conjugate gradient steps of each refit.

    Returns:
        float32, same shape: the rise of the error over a step, shared out by score among the
        weights that went in it; 0 for stored zeros.
    """
    scale = np.sqrt(np.maximum(np.einsum("gff->gf", problem.gram), 0))[:, None, :]
    kept = weight != 0
    current = refit(problem, weight, kept, damping=damping, steps=steps)
    costs = np.zeros(weight.shape, np.float32)
    error, floor = float(problem.errors(current).sum()), 0.0
    for fraction in (*_STEPS, 0.0):
        score = np.where(kept, np.abs(current) * scale, 0)
        tie = np.where(kept, np.abs(weight) + 1e-30, 0)
        stays = top(score, tie, round(fraction * weight.size))
        gone = kept & ~stays
        kept = stays
        if kept.any():
            current = refit(problem, weight, kept, damping=damping, steps=steps, start=current)
            now = float(problem.errors(current).sum())
        else:
            now = float(problem.power.sum())
        if gone.any():
            rise = max(now - error, 0.0)
            share = score[gone].astype(np.float64) ** 2
            share = share / share.sum() if share.sum() > 0 else np.full(share.size, 1 / share.size)
            # Later steps cost more per weight, or the order would not be one.
            each = np.maximum(rise * share, floor)
            costs[gone] = each
            floor = max(floor, float(each.max()))
        error = max(error, now)
    return costs
