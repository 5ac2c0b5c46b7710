"""In what order the weights of a layer can go, and what the removal of each costs.

Both orders account for the refit: a cost is the rise of the layer's squared output error after the
remaining weights have been refitted. Costs are in units of that error, so that they compare across
neurons, and summed over a layer they make its curve of error against kept weights.

- `greedy.greedy_costs`: per neuron, remove the weight whose removal costs least, refit, repeat.
  Cubic in the fan-in for every neuron.
- Gradual: remove the lowest |w|·rms(a) of the whole layer in a few steps, with a refit of all
  neurons at once after each. A handful of matrix products per step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.compensation import refit
from onnx_sipp.pruning.selection import Mask, apportion, top, top_rows
from onnx_sipp.statistics.gram import Regression

__all__ = ["gradual_costs", "gradual_mask", "greedy_work", "product_work"]

Float = NDArray[np.floating]
Float32 = NDArray[np.float32]

# Kept fractions of the non-zero weights that a curve passes through.
_CURVE = (0.85, 0.7, 0.56, 0.44, 0.34, 0.26, 0.2, 0.15, 0.11, 0.08, 0.055, 0.035, 0.0)


def greedy_work(shape: tuple[int, ...]) -> float:
    """Multiplications that the greedy order takes for ``[group, out, fan_in]``."""
    groups, outs, fan_in = shape
    return groups * outs * fan_in**3 / 3


def product_work(shape: tuple[int, ...]) -> float:
    """Multiplications of one product of the weights with H."""
    groups, outs, fan_in = shape
    return float(groups * outs * fan_in**2)


def gradual_mask(
    problem: Regression,
    weight: Float,
    keep: int,
    *,
    damping: float,
    stages: int,
    steps: int,
    threads: int,
    by_neuron: bool = False,
) -> tuple[Mask, Float]:
    """Choose weights by removing the others in a few stages, equal in logarithm.

    Args:
        problem: H and B of the layer.
        weight: ``[group, out, fan_in]``; zeros in it stay zero.
        keep: how many weights stay.
        damping: relative to the mean diagonal of H.
        stages: refits on the way; each ranks the weights anew.
        steps: conjugate gradient steps of each.
        threads: of the refits.
        by_neuron: every neuron keeps the same share.

    Returns:
        The mask, and refitted weights to go on from.
    """
    scale = _input_scale(problem)
    current: Float = weight
    kept = weight != 0
    alive_at_first = int(kept.sum())
    fraction = keep / max(1, alive_at_first)
    for stage in range(1, stages + 1):
        count = keep if stage == stages else round(alive_at_first * fraction ** (stage / stages))
        score, alive = np.abs(current) * scale, np.where(kept, np.abs(weight), 0)
        if by_neuron:
            places = np.count_nonzero(alive, axis=-1)
            sizes = np.full(places.size, weight.shape[-1])
            counts = apportion(sizes, places.ravel(), max(count, keep)).reshape(places.shape)
            kept = top_rows(score, alive, counts)
        else:
            kept = top(score, alive, max(count, keep))
        if stage < stages:
            solution = refit(
                problem, weight, kept, damping=damping, steps=steps, start=current, threads=threads
            )
            current = solution.weight
    return kept, current


def gradual_costs(
    problem: Regression, weight: Float, *, damping: float, steps: int = 8, threads: int = 1
) -> Float32:
    """Cost of removing each weight when they go in a few steps, the whole layer at once.

    Args:
        problem: H and B of the layer.
        weight: ``[group, out, fan_in]``; zeros in it stay zero.
        damping: relative to the mean diagonal of H.
        steps: conjugate gradient steps of each refit.
        threads: of the refits.

    Returns:
        float32, same shape: the rise of the error over a step, shared out by score among the
        weights that went in it; 0 for stored zeros.
    """
    scale = _input_scale(problem)
    kept = weight != 0
    alive_at_first = int(kept.sum())
    costs = np.zeros(weight.shape, np.float32)
    now = refit(problem, weight, kept, damping=damping, steps=steps, threads=threads)
    error, floor = float(now.errors.sum()), 0.0
    for fraction in _CURVE:
        score = np.where(kept, np.abs(now.weight) * scale, 0)
        stays = top(score, np.where(kept, np.abs(weight), 0), round(fraction * alive_at_first))
        gone, kept = kept & ~stays, stays
        now = refit(
            problem, weight, kept, damping=damping, steps=steps, start=now.weight, threads=threads
        )
        total = float(now.errors.sum())
        if gone.any():
            # Later steps cost more per weight, or the order would not be one.
            each = np.maximum(max(total - error, 0.0) * _shares(score[gone]), floor)
            costs[gone] = each
            floor = max(floor, float(each.max()))
        error = max(error, total)
    return costs


def _input_scale(problem: Regression) -> Float:
    """rms(a) per input, ``[group, 1, fan_in]``."""
    diagonal = np.einsum("gff->gf", problem.gram)
    scale: Float = np.sqrt(np.maximum(diagonal, 0))[:, None, :]
    return scale


def _shares(scores: Float) -> Float:
    squares = scores.astype(np.float64) ** 2
    total = squares.sum()
    return squares / total if total > 0 else np.full(squares.size, 1 / squares.size)
