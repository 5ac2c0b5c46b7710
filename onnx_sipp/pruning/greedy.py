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

# Of what it was at first.
_LEAST_PIVOT = np.float32(1e-7)


def greedy_costs(problem: Regression, weight: Float, *, damping: float, threads: int) -> Float32:
    """Cost of removing each weight in the exact greedy order.

    Args:
        problem: H and B of the layer.
        weight: ``[group, out, fan_in]``, what damping pulls towards; zeros in it stay zero.
        damping: λ, see `Regression.scale`.
        threads: neurons worked on at the same time.

    Returns:
        float32, same shape: the rise of the squared error when the weight goes, never falling
        along a neuron's order; 0 for stored zeros.
    """
    costs = np.zeros(weight.shape, np.float32)
    for group, old in enumerate(weight):
        hessian, shift = problem.damped(group, damping, weight)
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


@compiled
def _greedy_rows(inverse: Float32, optimum: Float32, used: NDArray[np.bool_]) -> Float32:
    """Costs of some neurons.

    Removing input p takes v vᵀ from H⁻¹, where v is its column p over the root of its pivot. The
    matrix itself is not kept up: its diagonal is, and a column is made when its input goes.
    """
    rows, fan_in = optimum.shape
    costs = np.zeros((rows, fan_in), np.float32)
    taken = np.empty((fan_in, fan_in), np.float32)  # the vectors v so far, of the active inputs
    column = np.empty(fan_in, np.float32)
    for row in range(rows):
        # The active inputs stand first, so that all work is on leading parts.
        w, diagonal, place = optimum[row].copy(), np.diag(inverse).copy(), np.arange(fan_in)
        worst = np.float32(0)
        for gone in range(fan_in):
            active = fan_in - gone
            best = _cheapest(diagonal, w, used[row], place, active)
            p = place[best]
            _make_column(column, inverse[p], taken, place, gone, best, active)
            # Damped, it cannot come near 0 but by rounding.
            pivot = max(column[best], _LEAST_PIVOT * inverse[p, p])
            if used[row, p]:
                worst = max(worst, w[best] * w[best] / pivot)
                costs[row, p] = worst
            change, scale = w[best] / pivot, np.float32(1) / np.sqrt(pivot)
            for a in range(active):
                w[a] -= change * column[a]
                v = column[a] * scale
                diagonal[a] -= v * v
                taken[gone, a] = v
            last = active - 1
            w[best], diagonal[best], place[best] = w[last], diagonal[last], place[last]
            for step in range(gone + 1):
                taken[step, best] = taken[step, last]
    return costs


@compiled
def _cheapest(
    diagonal: Float32, w: Float32, used: NDArray[np.bool_], place: NDArray[np.intp], active: int
) -> int:
    """The active input whose removal costs least; stored zeros go first, for free."""
    best, lowest = 0, np.float32(3e38)
    for a in range(active):
        if not used[place[a]]:
            return a
        cost = w[a] * w[a] / diagonal[a]
        if cost < lowest:
            best, lowest = a, cost
    return best


@compiled
def _make_column(
    column: Float32,
    inverse: Float32,
    taken: Float32,
    place: NDArray[np.intp],
    gone: int,
    best: int,
    active: int,
) -> None:
    """A column of the inverse less what was taken from it."""
    for i in range(active):
        column[i] = inverse[place[i]]
    fours = gone - gone % 4  # every step reads and writes the column
    for s in range(0, fours, 4):
        a, b, c, d = taken[s, best], taken[s + 1, best], taken[s + 2, best], taken[s + 3, best]
        for i in range(active):
            column[i] -= (
                a * taken[s, i] + b * taken[s + 1, i] + c * taken[s + 2, i] + d * taken[s + 3, i]
            )
    for s in range(fours, gone):
        a = taken[s, best]
        for i in range(active):
            column[i] -= a * taken[s, i]
