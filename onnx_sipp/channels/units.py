"""Units: what is cut as one, kept track of by a number for every place along every axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FIXED", "Ids", "Units"]

# A place along an axis, by the number of its unit.
Ids = NDArray[np.int64]

# The number of what is never cut: samples, pixels, what comes from outside.
FIXED = 0


class Units:
    """Numbers that are found to be the same thing are joined; some turn out to be fixed."""

    def __init__(self) -> None:
        self._parent = [FIXED]
        self._reasons: dict[int, str] = {FIXED: "it is no channel"}

    def fresh(self, count: int) -> Ids:
        """New units, each different from all others."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def join(self, one: Ids, other: Ids, why: str) -> None:
        """Say that two axes run side by side: each place of one is cut with that of the other.

        Args:
            one: units along an axis.
            other: along the other axis, as many.
            why: the reason if a unit meets something fixed.
        """
        pairs = np.unique(np.stack([one, other], axis=1), axis=0)
        for a, b in pairs.tolist():
            self._join(self._root(a), self._root(b), why)

    def tie(self, ids: Ids, why: str) -> int:
        """Make one unit of several, and give its number."""
        first = np.full(ids.size - 1, ids[0])
        self.join(first, ids[1:], why)
        return int(ids[0])

    def fix(self, ids: Ids, why: str) -> None:
        """Say that units cannot be cut; the first reason of each is kept."""
        for number in np.unique(ids).tolist():
            self._reasons.setdefault(self._root(number), why)

    def roots(self, ids: Ids) -> Ids:
        """The numbers that units go by after all joins."""
        values, places = np.unique(ids, return_inverse=True)
        found = np.array([self._root(number) for number in values.tolist()], np.int64)
        return found[places].reshape(ids.shape)

    def reason(self, number: int) -> str:
        """Why a unit cannot be cut, "" if it can."""
        return self._reasons.get(self._root(number), "")

    def _root(self, number: int) -> int:
        parent = self._parent
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def _join(self, one: int, other: int, why: str) -> None:
        if one == other:
            return
        if FIXED in (one, other):  # what is fixed for different reasons stays apart
            self._reasons.setdefault(one or other, why)
            return
        known = self._reasons.get(one) or self._reasons.pop(other, "")
        self._parent[other] = one
        if known:
            self._reasons[one] = known


def tied_by(units: Units, ids: Ids, coordinate: Ids, count: int, why: str) -> Ids:
    """Tie units that share a coordinate.

    Args:
        units: that they belong to.
        ids: any number of units.
        coordinate: of each, below ``count``.
        count: of coordinates; each occurs.
        why: see `Units.join`.

    Returns:
        The unit of every coordinate.
    """
    first = np.zeros(count, np.int64)
    first[coordinate[::-1]] = ids[::-1]
    units.join(ids, first[coordinate], why)
    return first
