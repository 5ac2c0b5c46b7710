"""In which order units (channels, hidden units, heads) go, and what each costs.

A unit is several inputs of every layer that reads it. Removing the inputs S of a layer with weights
W and refitting the others raises its squared error by

    tr( W_S (H⁻¹_SS)⁻¹ W_Sᵀ )

(the group form of the optimal brain surgeon; Hassibi and Stork 1993). The unit for which the sum of
that over its readers is least goes first; then W and H⁻¹ are brought up to date.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.evidence import Evidence, damping_for

__all__ = ["Order", "Reader", "eliminated", "ranked_by_sensitivity"]

Float64 = NDArray[np.float64]

# Steps that the removal of all units takes at most; where there are more units, some go together.
_STEPS = 128


@dataclass(frozen=True)
class Reader:
    """A layer that reads units.

    Attributes:
        evidence: of the layer.
        units: ``[group, fan_in]``, by input the place of its unit in the order of the group of
            units; -1 for those that stay.
    """

    evidence: Evidence
    units: NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """Units in the order of their removal.

    Attributes:
        units: their places, the first to go first.
        errors: relative squared error, summed over the readers, when so many are gone: one more
            than there are units.
    """

    units: NDArray[np.int64]
    errors: Float64

    def kept(self, count: int) -> NDArray[np.int64]:
        """The units that stay if so many do, in ascending order."""
        return np.sort(self.units[self.units.size - count :])


def eliminated(readers: Sequence[Reader], count: int) -> Order:
    """Remove the cheapest units one after the other, refitting in between.

    Args:
        readers: all layers that read them.
        count: how many units there are.
    """
    states = [
        _state(reader, group, count) for reader in readers for group in range(len(reader.units))
    ]
    left = np.ones(count, np.bool_)
    order: list[int] = []
    errors = [0.0]
    step = max(1, count // _STEPS)
    while left.any():
        costs = np.zeros(count)
        for state in states:
            costs += state.costs(left)
        chosen = np.flatnonzero(left)[np.argsort(costs[left], kind="stable")[:step]]
        for unit in chosen.tolist():
            order.append(unit)
            errors.append(errors[-1] + float(costs[unit]))
        left[chosen] = False
        for state in states:
            state.remove(chosen)
    return Order(np.array(order), np.array(errors))


def ranked_by_sensitivity(readers: Sequence[Reader], count: int) -> Order:
    """Units by SiPP's channel sensitivity: the largest of all their weights.

    Liebenwein et al., Provable Filter Pruning, arXiv 1911.07412. The errors are not known.

    Args:
        readers: all layers that read them.
        count: how many units there are.
    """
    found = np.zeros(count)
    for reader in readers:
        largest = reader.evidence.sensitivity.max(axis=1)
        inside = reader.units >= 0
        np.maximum.at(found, reader.units[inside], largest[inside])
    return Order(np.argsort(found, kind="stable"), np.full(count + 1, np.nan))


def _state(reader: Reader, group: int, count: int) -> _Exact | _Diagonal:
    wide = reader.evidence.fit.is_very_wide
    return (_Diagonal if wide else _Exact)(reader, group, count)


class _Exact:
    """One group of a reader, with H⁻¹ and the refitted weights of what is left."""

    def __init__(self, reader: Reader, group: int, count: int) -> None:
        evidence = reader.evidence
        problem, power = evidence.fit, evidence.power
        h, shift = problem.damped(group, damping_for(evidence), evidence.weight)
        self._inverse = np.linalg.inv(h)
        cross = problem.cross[group] + shift * evidence.weight[group]
        rate = np.sqrt(evidence.rate[group] / (power or 1.0))[:, None]
        self._weight = rate * (cross @ self._inverse)
        self._inputs = _inputs_of(reader.units[group], count)

    def costs(self, left: NDArray[np.bool_]) -> Float64:
        """What the removal of each unit costs; 0 for those that are gone."""
        result = np.zeros(left.size)
        by_width: dict[int, list[int]] = {}
        for unit in np.flatnonzero(left).tolist():
            by_width.setdefault(len(self._inputs[unit]), []).append(unit)
        for width, units in by_width.items():
            if width == 0:
                continue
            inputs = np.stack([self._inputs[unit] for unit in units])  # [unit, width]
            blocks = self._inverse[inputs[:, :, None], inputs[:, None, :]]
            weight = self._weight[:, inputs].transpose(1, 2, 0)  # [unit, width, out]
            solved = np.linalg.solve(blocks, weight)
            result[units] = np.einsum("uwo,uwo->u", weight, solved)
        return result

    def remove(self, units: NDArray[np.int64]) -> None:
        """Take units out and refit the rest."""
        gone = np.concatenate([self._inputs[unit] for unit in units.tolist()])
        if not gone.size:
            return
        rows = self._inverse[gone]
        solved = np.linalg.solve(rows[:, gone], rows)
        self._weight -= self._weight[:, gone] @ solved
        self._inverse -= rows.T @ solved
        # What is gone is not asked for again; the numbers there would only gather rounding errors.
        self._weight[:, gone] = 0
        self._inverse[gone], self._inverse[:, gone] = 0, 0


class _Diagonal:
    """One group of a reader that is too wide for H⁻¹: as if its inputs were independent."""

    def __init__(self, reader: Reader, group: int, count: int) -> None:
        evidence = reader.evidence
        rate = evidence.rate[group] / (evidence.power or 1.0)
        squares = np.einsum("o,of->f", rate, evidence.weight[group].astype(np.float64) ** 2)
        cost = squares * evidence.fit.diagonal[group]
        self._costs = np.array([cost[i].sum() for i in _inputs_of(reader.units[group], count)])

    def costs(self, left: NDArray[np.bool_]) -> Float64:
        """What the removal of each unit costs."""
        return np.where(left, self._costs, 0.0)

    def remove(self, units: NDArray[np.int64]) -> None:
        """Nothing changes for the others."""


def _inputs_of(units: NDArray[np.int64], count: int) -> list[NDArray[np.intp]]:
    """Per unit, the inputs that it is."""
    order = np.argsort(units, kind="stable")
    edges = np.searchsorted(units[order], np.arange(count + 1))
    return [order[edges[unit] : edges[unit + 1]] for unit in range(count)]
