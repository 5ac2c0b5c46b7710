"""How many units each coupled group keeps, for a goal over the whole model.

Minimises Σ −log(1 − e) over the groups' relative squared errors e. What a group's units cost in
multiply-adds depends on what the others keep, so it is searched for: the cheapest step per
multiply-add is taken again and again; what the last one took too much is given back where it helps
most; and then groups lose more, if what can be given back for that is worth more.
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

# Groups times counts up to which exchanges are tried, and how far a step may go.
_EXCHANGES, _STRIDE = 400, 4


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
    search = _Search(curves, share, goal)
    levels = search.lowered([0] * len(curves))
    if levels is None:
        return None
    levels = search.raised(levels)
    if sum(len(curve.counts) for curve in curves) <= _EXCHANGES:
        levels = search.exchanged(levels)
    return [int(count) for count in search.counts(levels)]


class _Search:
    """Searches over levels: places in the curves, 0 for all units."""

    def __init__(self, curves: Sequence[Curve], share: Share, goal: float) -> None:
        self._curves, self._share, self._goal = curves, share, goal
        losses = [-np.log1p(-np.clip(curve.errors, 0, 0.99)) for curve in curves]
        self._losses = [np.maximum.accumulate(loss) for loss in losses]
        self._volumes: dict[tuple[int, ...], float] = {}

    def counts(self, levels: Sequence[int]) -> Float64:
        pairs = zip(self._curves, levels, strict=True)
        return np.array([curve.counts[level] for curve, level in pairs], np.float64)

    def volume(self, levels: Sequence[int]) -> float:
        key = tuple(levels)
        if key not in self._volumes:
            self._volumes[key] = self._share(self.counts(levels))
        return self._volumes[key]

    def loss(self, levels: Sequence[int]) -> float:
        return float(sum(own[level] for own, level in zip(self._losses, levels, strict=True)))

    def lowered(self, levels: list[int]) -> list[int] | None:
        """Step by step down to the goal, the cheapest step per volume first."""
        now = self.volume(levels)
        while now > self._goal:
            best: tuple[float, list[int]] | None = None
            for group, curve in enumerate(self._curves):
                last = min(levels[group] + _STRIDE, len(curve.counts) - 1)
                for level in range(levels[group] + 1, last + 1):
                    other = _moved(levels, group, level)
                    gain = now - self.volume(other)
                    rate = (self.loss(other) - self.loss(levels)) / gain if gain > 0 else np.inf
                    if gain > 0 and (best is None or rate < best[0]):
                        best = rate, other
            if best is None:
                return None
            levels = best[1]
            now = self.volume(levels)
        return levels

    def raised(self, levels: list[int]) -> list[int]:
        """Up again where that lowers the loss most, as far as the goal allows."""
        while True:
            found = [
                (self.loss(other), other)
                for group, level in enumerate(levels)
                for other in (_moved(levels, group, up) for up in range(level))
                if self.loss(other) < self.loss(levels) and self.volume(other) <= self._goal
            ]
            if not found:
                return levels
            levels = min(found)[1]

    def exchanged(self, levels: list[int]) -> list[int]:
        """Down in one group and up in others, as long as that lowers the loss."""
        while True:
            found = [
                self.raised(_moved(levels, group, level + 1))
                for group, level in enumerate(levels)
                if level + 1 < len(self._curves[group].counts)
            ]
            best = min(found, key=self.loss, default=levels)
            if self.loss(best) >= self.loss(levels) - 1e-12:
                return levels
            levels = best


def _moved(levels: list[int], group: int, level: int) -> list[int]:
    return [*levels[:group], level, *levels[group + 1 :]]


def even_counts(curves: Sequence[Curve], share: Share, goal: float) -> list[int] | None:
    """The same share of the units of every group, the largest that meets the goal.

    Args:
        curves: of the groups.
        share: of the dense model's volume.
        goal: largest share.
    """
    for kept in np.linspace(1, 0, 257):
        counts = [
            max([n for n in curve.counts if n <= kept * curve.counts[0]], default=curve.counts[-1])
            for curve in curves
        ]
        if share(np.array(counts, np.float64)) <= goal:
            return counts
    return None
