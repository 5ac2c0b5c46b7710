"""In what order the weights of a layer can go, and what the removal of each costs.

Both orders account for the refit: a cost is the rise of the layer's squared output error after the
remaining weights have been refitted. Costs are in units of that error, so that they compare across
neurons, and summed over a layer they make its curve of error against kept weights.

- `greedy.greedy_costs`: per neuron, remove the weight whose removal costs least, refit, repeat.
  Cubic in the fan-in for every neuron.
- Gradual: remove the lowest |w|·rms(a) of the whole layer in a few steps, with a refit of all
  neurons at once after each. A handful of matrix products per step. What has gone may come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.cells import Cells, alive_units
from onnx_sipp.pruning.compensation import refit
from onnx_sipp.pruning.selection import Mask, kept_only, top
from onnx_sipp.statistics.regression import Regression
from onnx_sipp.threads import row_parts

__all__ = [
    "Pick",
    "activation_scores",
    "gradual_costs",
    "gradual_mask",
    "greedy_work",
    "input_scale",
]

Float = NDArray[np.floating]
Float32 = NDArray[np.float32]
Pick = Callable[[Float, int], Mask]

# Kept fractions of the non-zero weights that a curve passes through.
_CURVE = (0.85, 0.7, 0.56, 0.44, 0.34, 0.26, 0.2, 0.15, 0.11, 0.08, 0.055, 0.035, 0.0)


def greedy_work(shape: tuple[int, ...]) -> float:
    """Multiplications that the greedy order takes for ``[group, out, fan_in]``."""
    groups, outs, fan_in = shape
    return groups * outs * fan_in**3 / 3


def gradual_mask(
    problem: Regression,
    weight: Float,
    keep: int,
    pick: Pick,
    *,
    gain: Float,
    damping: float,
    schedule: Sequence[float],
    steps: int,
    threads: int,
    alive: int | None = None,
) -> tuple[Mask, Float]:
    """Choose weights in stages of pruning and refitting, in which dropped ones may come back.

    A dropped weight returns where what it would become outweighs a kept one: one step of iterative
    hard thresholding (Blumensath & Davies, arXiv 0805.0510) between the refits.

    Args:
        problem: H and B of the layer.
        weight: ``[group, out, fan_in]``; zeros in it stay zero.
        keep: how many weights stay.
        pick: the mask of the so many largest scores.
        gain: ``[group, out]``, factor from the outputs to what the next nodes see.
        damping: λ, see `Regression.scale`.
        schedule: per stage, how far it goes: the share of the logarithm of the fraction to keep.
        steps: conjugate gradient steps of each stage.
        threads: of the refits.
        alive: of how many units ``keep`` and ``pick`` count; None for the weights that are not 0.

    Returns:
        The mask, and weights to start the refit from.
    """
    start: Float = weight
    wishes: Float | None = None
    alive = int(np.count_nonzero(weight)) if alive is None else alive
    fraction = keep / max(1, alive)
    kept = weight != 0
    for stage, done in enumerate(schedule):
        score = activation_scores(problem, start, gain, wishes)
        kept = pick(score, keep if done == 1 else round(alive * fraction**done))
        if stage < len(schedule) - 1:
            solution = refit(
                problem, weight, kept,
                damping=damping, steps=steps, start=start, threads=threads, with_wishes=True,
            )  # fmt: skip
            start, wishes = solution.weight, solution.wishes
    return kept, start


def activation_scores(
    problem: Regression, weight: Float, gain: Float, wishes: Float | None = None
) -> Float:
    """|w| · rms(a) · |gain|, ``[group, out, fan_in]``.

    Args:
        problem: H of the layer.
        weight: ``[group, out, fan_in]``.
        gain: see `gradual_mask`.
        wishes: what weights that were dropped would become, 0 for others; None if none were.
    """
    scale = input_scale(problem).astype(np.float32)
    factor = np.abs(gain)[..., None].astype(np.float32)
    scores = np.empty(weight.shape, np.result_type(weight, np.float32))
    for rows in row_parts(weight.shape):
        own = scores[:, rows]
        np.abs(weight[:, rows] if wishes is None else weight[:, rows] + wishes[:, rows], out=own)
        own *= scale
        own *= factor[:, rows]
    return scores


def gradual_costs(
    problem: Regression,
    weight: Float,
    *,
    damping: float,
    steps: int,
    threads: int = 1,
    cells: Cells | None = None,
) -> Float32:
    """Cost of removing each weight when they go in a few steps, the whole layer at once.

    Args:
        problem: H and B of the layer.
        weight: ``[group, out, fan_in]``; zeros in it stay zero.
        damping: λ, see `Regression.scale`.
        steps: conjugate gradient steps of each refit.
        threads: of the refits.
        cells: that weights go in as a whole, None for single weights.

    Returns:
        float32, same shape: the rise of the error over a step, shared out by score among the
        weights that went in it; 0 for stored zeros.
    """
    scale = input_scale(problem)
    kept = weight != 0
    alive_at_first = alive_units(cells, weight)
    best = top if cells is None else cells.best
    costs = np.zeros(weight.shape, np.float32)
    now = refit(problem, weight, kept, damping=damping, steps=steps, threads=threads)
    error, floor = float(now.errors.sum()), 0.0
    for fraction in _CURVE:
        score = np.abs(now.weight) * scale
        stays = best(score, kept_only(np.abs(weight), kept), round(fraction * alive_at_first))
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


def input_scale(problem: Regression) -> Float:
    """Return rms(a) per input, ``[group, 1, fan_in]``."""
    scale: Float = np.sqrt(np.maximum(problem.diagonal, 0))[:, None, :]
    return scale


def _shares(scores: Float) -> Float:
    squares = scores.astype(np.float64) ** 2
    total = squares.sum()
    return squares / total if total > 0 else np.full(squares.size, 1 / squares.size)
