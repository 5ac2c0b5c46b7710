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

__all__ = ["FLOOR", "error_budget", "relative_error"]

Float64 = NDArray[np.float64]

# By default no layer is emptied, whatever its curve says.
FLOOR = 0.01
_GUARDED = 1e300


def relative_error(costs: NDArray[np.floating], power: float, keep: int) -> float:
    """E after all but ``keep`` weights have gone."""
    ordered = np.sort(costs.ravel().astype(np.float64))
    return float(min(1.0, ordered[: len(ordered) - keep].sum() / max(power, 1e-30)))


def error_budget(
    costs: Sequence[NDArray[np.floating]],
    powers: Sequence[float],
    capacities: Sequence[int],
    keep: int,
    importance: Sequence[float] | None = None,
    floor: float = FLOOR,
) -> list[int]:
    """Share out the weights that stay.

    Args:
        costs: per layer, the cost of removing each weight; any shape.
        powers: per layer, y.
        capacities: per layer, the number of non-zero weights.
        keep: how many weights stay in all.
        importance: v_ℓ, all 1 if None.
        floor: share of its weights that every layer keeps at least; less where the total is.

    Returns:
        Counts per layer that sum to ``min(keep, sum of capacities)``.
    """
    floor = min(floor, keep / max(1, sum(layer.size for layer in costs)))
    marginals = []
    for index, layer in enumerate(costs):
        rate = _marginals(layer, powers[index])
        rate *= 1.0 if importance is None else importance[index]
        guarded = min(max(1, int(floor * layer.size)), capacities[index])
        rate[len(rate) - guarded :] = _GUARDED
        rate[-1:] = np.inf  # one weight of every layer comes before all else
        marginals.append(rate[len(rate) - capacities[index] :])
    return _largest(marginals, keep)


def _marginals(costs: NDArray[np.floating], power: float) -> Float64:
    """C / (y (1 − e)) in the order of removal, made never falling."""
    ordered = np.sort(costs.ravel().astype(np.float64))
    share = ordered / max(power, 1e-30)
    left = np.maximum(1 - np.cumsum(share), 1e-3)
    result: Float64 = np.maximum.accumulate(share / left)
    return result


def _largest(marginals: Sequence[Float64], keep: int) -> list[int]:
    """How many of the ``keep`` largest values each layer holds; ties go to earlier layers."""
    values = np.concatenate(marginals)
    owner = np.repeat(np.arange(len(marginals)), [len(part) for part in marginals])
    keep = min(keep, len(values))
    order = np.argsort(-values, kind="stable")[:keep]
    return [int(count) for count in np.bincount(owner[order], minlength=len(marginals))]
