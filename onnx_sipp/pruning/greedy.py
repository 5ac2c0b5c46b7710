"""The exact greedy order of removal, compiled.

Per neuron, remove the weight whose removal costs least, refit the others, repeat: Optimal Brain
Surgeon in its exact form (Frantar & Alistarh, arXiv 2208.11580, algorithm 1). One run gives the
cost of every count of kept weights.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.compiled import compiled
from onnx_sipp.statistics.regression import Regression
from onnx_sipp.threads import side_by_side

__all__ = ["greedy_costs"]

Float = NDArray[np.floating]
Float32 = NDArray[np.float32]


def greedy_costs(problem: Regression, weight: Float, *, damping: float, threads: int) -> Float32:
    """Cost of removing each weight in the exact greedy order.

    Args:
        problem: H and B of the layer.
        weight: ``[group, out, fan_in]``, what damping pulls towards; zeros in it stay zero.
        damping: relative to the mean diagonal of H.
        threads: neurons worked on at the same time.

    Returns:
        float32, same shape: the rise of the squared error when the weight goes, never falling
        along a neuron's order; 0 for stored zeros.
    """
    costs = np.zeros(weight.shape, np.float32)
    for group, old in enumerate(weight):
        hessian = problem.gram[group].copy()
        shift = damping * float(np.trace(hessian)) / len(hessian) or 1.0
        hessian[np.diag_indices_from(hessian)] += shift
        inverse = np.linalg.inv(hessian)
        optimum = (problem.cross[group] + shift * old) @ inverse
        inverse32 = inverse.astype(np.float32)
        optimum32 = optimum.astype(np.float32)
        parts = np.array_split(np.arange(len(old)), min(len(old), 4 * threads))

        def work(
            rows: NDArray[np.intp],
            inverse32: Float32 = inverse32,
            optimum32: Float32 = optimum32,
            used: NDArray[np.bool_] = old != 0,
            out: Float32 = costs[group],
        ) -> None:
            out[rows] = _greedy_rows(inverse32, optimum32[rows], used[rows])

        side_by_side(work, parts, threads)
    return costs


@compiled(fastmath=True)
def _greedy_rows(inverse: Float32, optimum: Float32, used: NDArray[np.bool_]) -> Float32:
    rows, fan_in = optimum.shape
    costs = np.zeros((rows, fan_in), np.float32)
    for row in range(rows):
        # The active inputs stand first, so that every update is of a leading block.
        h, w, place = inverse.copy(), optimum[row].copy(), np.arange(fan_in)
        worst = np.float32(0)
        for active in range(fan_in, 0, -1):
            best = _cheapest(h, w, used[row], place, active)
            if used[row, place[best]]:
                worst = max(worst, w[best] * w[best] / h[best, best])
                costs[row, place[best]] = worst
            _remove(h, w, best, active)
            place[best] = place[active - 1]
    return costs


@compiled(fastmath=True)
def _cheapest(
    h: Float32, w: Float32, used: NDArray[np.bool_], place: NDArray[np.intp], active: int
) -> int:
    """The active input whose removal costs least; stored zeros go first, for free."""
    best, lowest = 0, np.float32(3e38)
    for a in range(active):
        if not used[place[a]]:
            return a
        cost = w[a] * w[a] / h[a, a]
        if cost < lowest:
            best, lowest = a, cost
    return best


@compiled(fastmath=True)
def _remove(h: Float32, w: Float32, best: int, active: int) -> None:
    """Refit the weights without one, and take it out of the inverse; the last takes its place."""
    pivot = h[best, best]
    column = h[best, :active].copy()
    change = w[best] / pivot
    for a in range(active):
        w[a] -= change * column[a]
        factor = column[a] / pivot
        for b in range(active):
            h[a, b] -= factor * column[b]
    last = active - 1
    if best != last:
        w[best] = w[last]
        h[best, :active] = h[last, :active]
        h[:active, best] = h[:active, last]
