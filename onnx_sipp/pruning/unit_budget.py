"""How many units each coupled group keeps, for a goal over the whole model.

Minimises the sum of the groups' errors. What a group's units cost in multiply-adds depends on what
the others keep, so the cheapest step per multiply-add is taken again and again; then what the last
step took too much is given back where it helps most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "even_counts", "unit_budget"]

Float64 = NDArray[np.float64]
# From counts of units per group to the share of the dense model's volume.
Share = Callable[[Float64], float]


@dataclass(frozen=True)
class Curve:
    """What a group loses.

    Attributes:
        counts: of units that may be kept, all of them first, in descending order.
        errors: relative squared error at each.
    """

    counts: Sequence[int]
    errors: Sequence[float]


def unit_budget(curves: Sequence[Curve], share: Share, goal: float) -> list[int] | None:
    """Counts of units per group with a share of at most ``goal``; None if that cannot be.

    Args:
        curves: of the groups.
        share: of the dense model's volume.
        goal: largest share.
    """
    losses = [-np.log1p(-np.clip(curve.errors, 0, 0.99)) for curve in curves]
    losses = [np.maximum.accumulate(loss) for loss in losses]
    levels = [0] * len(curves)

    def counts(at: Sequence[int]) -> Float64:
        pairs = zip(curves, at, strict=True)
        return np.array([curve.counts[level] for curve, level in pairs], np.float64)

    def moved(group: int, level: int) -> list[int]:
        return [*levels[:group], level, *levels[group + 1 :]]

    now = share(counts(levels))
    while now > goal:
        best: tuple[float, int, int] | None = None
        for group, curve in enumerate(curves):
            for level in range(levels[group] + 1, len(curve.counts)):
                gain = now - share(counts(moved(group, level)))
                loss = float(losses[group][level] - losses[group][levels[group]])
                if gain > 0 and (best is None or loss / gain < best[0]):
                    best = loss / gain, group, level
        if best is None:
            return None
        levels[best[1]] = best[2]
        now = share(counts(levels))
    while True:
        returns = [
            (float(losses[group][levels[group]] - losses[group][level]), group, level)
            for group in range(len(curves))
            for level in range(levels[group])
            if share(counts(moved(group, level))) <= goal
        ]
        if not returns or max(returns)[0] <= 0:
            return [int(count) for count in counts(levels)]
        _, group, level = max(returns)
        levels[group] = level


def even_counts(curves: Sequence[Curve], share: Share, goal: float) -> list[int] | None:
    """The same share of the units of every group, the largest that meets the goal.

    Args:
        as for `unit_budget`.
    """
    for kept in np.linspace(1, 0, 257)[1:]:
        counts = [max([n for n in c.counts if n <= kept * c.counts[0]], default=c.counts[-1])
                  for c in curves]  # fmt: skip
        if share(np.array(counts, np.float64)) <= goal:
            return counts
    return None
