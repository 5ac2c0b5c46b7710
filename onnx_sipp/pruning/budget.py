"""SiPP's budget: how many weights each half of each neuron gets.

For each v = (layer, sign, neuron) with sum of sensitivities S_v the bound on the relative error of
sampling m weights is decreasing and convex in m, so that

    min Σ_v ε_v(m_v) / η_ℓ    subject to  0 ≤ m_v ≤ nnz_v,  Σ m_v = B
    ε_v(m) = (t + √(t² + 6 t)) / 2,  t = 2 L_ℓ S_v / (3 m)

(the allocator of the authors' implementation, which hands it to a general convex solver) separates
once the multiplier of the sum is known: one bisection solves it exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Halves", "allocate_halves", "objective"]

Float64 = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Halves:
    """All neuron halves of all layers, as flat arrays of one length.

    Attributes:
        difficulty: L_ℓ S_v.
        priority: 1 / η_ℓ, the weight of the half in the objective.
        capacity: number of non-zero weights.
    """

    difficulty: Float64
    priority: Float64
    capacity: Counts


def objective(halves: Halves, counts: NDArray[np.integer]) -> float:
    """Value of the objective; infinite if a half that has sensitivities gets nothing."""
    return float(np.sum(halves.priority * _epsilon(halves.difficulty, counts.astype(np.float64))))


def _epsilon(difficulty: Float64, counts: Float64) -> Float64:
    """ε(m) of the module's docstring; 0 where there is nothing to approximate."""
    t = np.divide(
        2 * difficulty, 3 * counts, out=np.full_like(difficulty, np.inf), where=counts > 0
    )
    t = np.where(difficulty > 0, t, 0.0)
    result: Float64 = (t + np.sqrt(t * t + 6 * t)) / 2
    return result


def allocate_halves(halves: Halves, budget: int) -> Counts:
    """Solve the problem in integers that sum to the budget exactly.

    Args:
        halves: the neuron halves.
        budget: number of weights to give out; more than all capacities fills them all.

    Returns:
        m_v, int64. Halves without sensitivities get what no other half can use.
    """
    counts = np.zeros(len(halves.capacity), np.int64)
    alive = (halves.difficulty > 0) & (halves.capacity > 0)
    live = Halves(halves.difficulty[alive], halves.priority[alive], halves.capacity[alive])
    budget = min(budget, int(halves.capacity.sum()))
    live_budget = min(budget, int(live.capacity.sum()))
    if live_budget > 0:
        counts[alive] = _exchange(live, _floor(live, live_budget), live_budget)
    rest = budget - live_budget
    idle = np.flatnonzero(~alive)
    # Weights that no sample ever needed: where they go changes no bound, so fill in order.
    filled = np.minimum(np.cumsum(halves.capacity[idle]), rest)
    counts[idle] = np.diff(filled, prepend=0)
    return counts


def _floor(halves: Halves, budget: int) -> Counts:
    """The continuous optimum, rounded down."""
    low, high = -200.0, 200.0  # natural logarithm of the multiplier
    for _ in range(100):
        middle = (low + high) / 2
        if _at_multiplier(halves, middle).sum() > budget:
            low = middle
        else:
            high = middle
    return np.floor(_at_multiplier(halves, high)).astype(np.int64)


def _at_multiplier(halves: Halves, log_multiplier: float) -> Float64:
    """Solve −ε'(m)·priority = multiplier for every half, clipped to [0, capacity].

    With c = 2 L S / 3 and t = c / m, the marginal gain is
    priority · (1 + (t + 3) / √(t² + 6 t)) · t² / (2 c): increasing in t, with a slope between
    1.5 and 2 in logarithms, so Newton's method converges from anywhere.
    """
    c = 2 * halves.difficulty / 3
    log_t = (log_multiplier - np.log(halves.priority / (2 * c))) / 2
    for _ in range(12):
        t = np.exp(np.clip(log_t, -300, 300))
        root = np.sqrt(t * t + 6 * t)
        factor = 1 + (t + 3) / root
        gain = np.log(halves.priority * factor / (2 * c)) + 2 * log_t
        # d log(factor) / d log t; (t + 3)² − root² = 9.
        slope = 2 - 9 * t / (root**3 * factor)
        log_t = log_t - (gain - log_multiplier) / slope
    counts = c / np.exp(np.clip(log_t, -300, 300))
    return np.minimum(counts, halves.capacity.astype(np.float64))


def _exchange(halves: Halves, counts: Counts, budget: int) -> Counts:
    """Give out what rounding left, then swap single weights while that lowers the objective.

    For a separable convex objective, no improving swap means the integer optimum.
    """

    def gain(m: Counts) -> Float64:
        """What one more weight is worth; −1 where there is no room."""
        here = _epsilon(halves.difficulty, m.astype(np.float64))
        there = _epsilon(halves.difficulty, (m + 1).astype(np.float64))
        # A first weight is worth infinitely much; among first weights the hardest half leads.
        worth = np.where(np.isinf(here), 1e300 - 1 / (1 + there), here - there)
        return np.where(m < halves.capacity, halves.priority * worth, -1.0)

    while (rest := budget - int(counts.sum())) > 0:
        worth = gain(counts)
        room = np.flatnonzero(worth >= 0)
        best = room[np.argsort(-worth[room], kind="stable")][:rest]
        counts[best] += 1
    for _ in range(4 * len(counts)):
        up = gain(counts)
        down = np.where(counts > 0, gain(counts - 1), np.inf)
        most, worst = int(np.argmax(up)), int(np.argmin(down))
        if most == worst or up[most] <= down[worst]:
            break
        counts[most] += 1
        counts[worst] -= 1
    return counts
