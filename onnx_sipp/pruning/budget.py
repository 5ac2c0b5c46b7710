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

    For a separable convex objective the optimum is to spend the budget on the weights that gain
    most, one after the other. Those are the weights that gain more than some threshold, which
    bisection finds.

    Args:
        halves: the neuron halves.
        budget: number of weights to give out; more than all capacities fills them all.

    Returns:
        m_v, int64. Halves without sensitivities get what no other half can use. A budget below
        the number of halves, which no bound can be had for, gives one weight each to the halves
        that need most.
    """
    counts = np.zeros(len(halves.capacity), np.int64)
    alive = (halves.difficulty > 0) & (halves.capacity > 0)
    live = Halves(halves.difficulty[alive], halves.priority[alive], halves.capacity[alive])
    budget = max(0, min(budget, int(halves.capacity.sum())))
    live_budget = min(budget, int(live.capacity.sum()))
    if live_budget > 0:
        counts[alive] = _solve(live, live_budget)
    rest = budget - live_budget
    idle = np.flatnonzero(~alive)
    # Weights that no sample ever needed: where they go changes no bound, so fill in order.
    filled = np.minimum(np.cumsum(halves.capacity[idle]), rest)
    counts[idle] = np.diff(filled, prepend=0)
    return counts


def _solve(halves: Halves, budget: int) -> Counts:
    """Solve for halves that all have sensitivities and room."""
    size = len(halves.capacity)
    if budget < size:
        most = np.argsort(-halves.priority * halves.difficulty, kind="stable")[:budget]
        return np.bincount(most, minlength=size).astype(np.int64)
    low, high = -200.0, 200.0  # natural logarithm of the threshold
    counts = np.ones(size, np.int64)  # what a threshold above all gains leaves
    for _ in range(100):
        middle = (low + high) / 2
        wanted = _worth_more_than(halves, middle)
        if wanted.sum() > budget:
            low = middle
        else:
            high, counts = middle, wanted
        if counts.sum() == budget:
            return counts
    while (rest := budget - int(counts.sum())) > 0:  # gains that are equal up to rounding
        gain = _gain(halves, counts)
        room = np.flatnonzero(counts < halves.capacity)
        counts[room[np.argsort(-gain[room], kind="stable")][:rest]] += 1
    return counts


def _gain(halves: Halves, counts: Counts) -> Float64:
    """By how much one more weight lowers the objective; infinite for a first weight."""
    placed: Float64 = counts.astype(np.float64)
    here, there = (_epsilon(halves.difficulty, m) for m in (placed, placed + np.float64(1)))
    return halves.priority * (here - there)


def _worth_more_than(halves: Halves, log_threshold: float) -> Counts:
    """For each half, how many weights gain more than the threshold, at most its capacity.

    A weight gains ∫ −ε' between its place and the next, so it is worth more than the threshold
    until the derivative falls below it, and at most one weight beyond.
    """
    # One less, for the rounding of the root.
    start = np.floor(_where_derivative_is(halves, log_threshold)) - 1
    counts: Counts = np.clip(start, 0, halves.capacity).astype(np.int64)
    threshold = np.exp(log_threshold)
    for _ in range(3):
        counts += (_gain(halves, counts) > threshold) & (counts < halves.capacity)
    return counts


def _where_derivative_is(halves: Halves, log_slope: float) -> Float64:
    """Solve −ε'(m)·priority = slope for every half.

    With c = 2 L S / 3 and t = c / m, the left-hand side is
    priority · (1 + (t + 3) / √(t² + 6 t)) · t² / (2 c): increasing in t, with a slope between
    1.5 and 2 in logarithms, so Newton's method converges from anywhere.
    """
    c = 2 * halves.difficulty / 3
    scale = np.log(halves.priority / (2 * c))
    log_t = (log_slope - scale) / 2
    for _ in range(6):
        t = np.exp(np.clip(log_t, -300, 300))
        root = np.sqrt(t * t + 6 * t)
        factor = 1 + (t + 3) / root
        # d log(factor) / d log t; (t + 3)² − root² = 9.
        slope = 2 - 9 * t / (root**3 * factor)
        log_t = log_t - (scale + np.log(factor) + 2 * log_t - log_slope) / slope
    result: Float64 = c / np.exp(np.clip(log_t, -300, 300))
    return result
