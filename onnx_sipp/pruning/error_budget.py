"""The budget by measured error: how many weights each layer keeps.

With c_1 ≤ c_2 ≤ … the costs of a layer's removals and y the power of its output, dropping the
first k makes the relative error e(k) = (c_1 + … + c_k) / y. The budget minimises

    Σ_ℓ −v_ℓ log(1 − e_ℓ(k_ℓ))    subject to the total,

as if what is left of the signal after every layer multiplied. The curves are convex, so the
removals with the lowest marginal c / (y (1 − e)) are the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLOOR", "condensed", "error_budget", "relative_error"]

Float64 = NDArray[np.float64]
Counts = NDArray[np.int64]

# By default no layer is emptied, whatever its curve says.
FLOOR = 0.01
_GUARDED = 1e300
# Points of a curve that some neurons of a layer stand for.
_POINTS = 1 << 14


def condensed(costs: NDArray[np.floating], size: int) -> tuple[Float64, Counts]:
    """Let the costs of some weights of a layer stand for those of all.

    Args:
        costs: of some weights, any shape.
        size: how many weights the layer has.

    Returns:
        Costs in ascending order, and how many weights each of them stands for.
    """
    ordered = np.sort(costs.ravel().astype(np.float64))
    edges = np.linspace(0, ordered.size, min(ordered.size, _POINTS) + 1).round().astype(np.int64)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    means = np.diff(sums[edges]) / np.diff(edges)
    places = np.round(edges * (size / ordered.size)).astype(np.int64)
    return np.maximum.accumulate(means), np.diff(places)


def relative_error(
    costs: NDArray[np.floating], power: float, keep: int, times: Counts | None = None
) -> float:
    """E after all but ``keep`` weights have gone."""
    ordered, counts = _in_order(costs, times)
    gone = counts if keep == 0 else _without_last(counts, keep)
    return float(min(1.0, (ordered * gone)[gone > 0].sum() / max(power, 1e-30)))


def error_budget(
    costs: Sequence[NDArray[np.floating]],
    powers: Sequence[float],
    capacities: Sequence[int],
    keep: int,
    importance: Sequence[float] | None = None,
    floor: float | Sequence[float] = FLOOR,
    times: Sequence[Counts | None] | None = None,
) -> list[int]:
    """Share out the weights that stay.

    Args:
        costs: per layer, the cost of removing each weight; any shape.
        powers: per layer, y.
        capacities: per layer, the number of non-zero weights.
        keep: how many weights stay in all.
        importance: v_ℓ, all 1 if None.
        floor: share of its weights that every layer keeps at least, or that of each layer; the
            highest ones are lowered where the total is too small for all.
        times: per layer, how many weights each cost stands for (see `condensed`); None for one.

    Returns:
        Counts per layer that sum to ``min(keep, sum of capacities)``.
    """
    counts = [None] * len(costs) if times is None else times
    ordered = [_in_order(layer, own) for layer, own in zip(costs, counts, strict=True)]
    sizes = [int(own.sum()) for _, own in ordered]
    asked = [floor] * len(sizes) if isinstance(floor, float | int) else floor
    floors = _lowered(asked, sizes, keep)
    marginals = []
    for index, (layer, own) in enumerate(ordered):
        rate = _marginals(layer, own, powers[index])
        rate *= 1.0 if importance is None else importance[index]
        guarded = min(max(1, int(floors[index] * sizes[index])), capacities[index])
        rate[np.cumsum(own[::-1])[::-1] <= guarded] = _GUARDED
        rate[-1:] = np.inf  # one weight of every layer comes before all else
        idle = sizes[index] - capacities[index]  # zeros already, the cheapest to remove
        marginals.append((rate, np.clip(np.cumsum(own) - idle, 0, own)))
    return _largest(marginals, keep)


def _lowered(floors: Sequence[float], sizes: Sequence[int], keep: int) -> list[float]:
    """Floors, none above the share at which they ask for no more than the total."""
    left, size, lower = float(keep), sum(sizes), 0.0
    for share, own in sorted(zip(floors, sizes, strict=True)):
        # The lowest ones fit as they are, as long as all others can have as much.
        if share * size > left:
            highest = max(lower, left / max(1, size))
            return [min(floor, highest) for floor in floors]
        left, size, lower = left - share * own, size - own, share
    return list(floors)


def _in_order(costs: NDArray[np.floating], times: Counts | None) -> tuple[Float64, Counts]:
    flat = costs.ravel().astype(np.float64)
    if times is None:
        return np.sort(flat), np.ones(flat.size, np.int64)
    return flat, times


def _without_last(counts: Counts, keep: int) -> Counts:
    """What is left of counts when so many have been taken off their end."""
    ends = np.cumsum(counts)
    left: Counts = np.clip(ends[-1] - keep - (ends - counts), 0, counts)
    return left


def _marginals(ordered: Float64, counts: Counts, power: float) -> Float64:
    """C / (y (1 − e)) in the order of removal, made never falling."""
    share = ordered / max(power, 1e-30)
    left = np.maximum(1 - np.cumsum(share * counts), 1e-3)
    result: Float64 = np.maximum.accumulate(share / left)
    return result


def _largest(marginals: Sequence[tuple[Float64, Counts]], keep: int) -> list[int]:
    """How many of the ``keep`` largest values each layer holds; ties go to earlier layers."""
    values = np.concatenate([rates for rates, _ in marginals])
    counts = np.concatenate([own for _, own in marginals])
    owner = np.repeat(np.arange(len(marginals)), [len(rates) for rates, _ in marginals])
    order = np.argsort(-values, kind="stable")
    ends = np.cumsum(counts[order])
    taken = np.clip(keep - (ends - counts[order]), 0, counts[order])
    return [int(n) for n in np.bincount(owner[order], taken, minlength=len(marginals))]
