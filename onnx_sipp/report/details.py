"""Parts of a report that are there to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.threads import row_parts, side_by_side

__all__ = ["CurveReport", "Distribution", "StepReport"]

# Bins per decade, and decades below 1, which no sensitivity is above.
_PER_DECADE, _DECADES = 10, 5
_BINS = _PER_DECADE * _DECADES


@dataclass(frozen=True)
class Distribution:
    """How SiPP's sensitivities of a weight are distributed, and which were kept.

    Attributes:
        exponents: log10 of the edges of the bins, one more than there are bins; the first bin holds
            what lies below it, too.
        kept: per bin, weights that stay.
        dropped: per bin, weights that go.
        idle: weights of sensitivity 0: zero before, or on inputs that no sample fills.
        cut: log10 of the sensitivity above which lie as many weights as stay (to a bin); None if
            that takes idle ones, or none stay.
    """

    exponents: list[float]
    kept: list[int]
    dropped: list[int]
    idle: int
    cut: float | None

    @classmethod
    def of(
        cls,
        parts: Sequence[tuple[NDArray[np.floating], NDArray[np.floating]]],
        threads: int = 1,
    ) -> Distribution:
        """Count the sensitivities of a weight.

        Args:
            parts: of each block, sensitivities and its weights after, ``[group, out, fan_in]``.
            threads: parts of the neurons that are looked at at the same time.
        """
        pieces = [
            (values[:, rows], after[:, rows])
            for values, after in parts
            for rows in row_parts(values.shape)
        ]
        found = side_by_side(_counted, pieces, threads)
        counts = np.sum([count for count, _, _ in found], axis=0)
        stay = sum(stays for _, _, stays in found)
        return cls(
            exponents=[round(edge / _PER_DECADE - _DECADES, 4) for edge in range(_BINS + 1)],
            kept=counts[1].tolist(),
            dropped=counts[0].tolist(),
            idle=sum(idle for _, idle, _ in found),
            cut=_cut(counts.sum(axis=0), stay),
        )


def _counted(
    part: tuple[NDArray[np.floating], NDArray[np.floating]],
) -> tuple[NDArray[np.int64], int, int]:
    """Per bin what goes and what stays, how many are idle, and how many stay in all."""
    values, stays = part[0], part[1] != 0
    found = values > 0
    scaled = (np.log10(values[found]) + _DECADES) * _PER_DECADE
    places = np.clip(scaled, 0, _BINS - 1).astype(np.int64)
    marked = places + _BINS * stays[found]
    counts = np.bincount(marked, minlength=2 * _BINS).reshape(2, _BINS)
    return counts, values.size - places.size, int(np.count_nonzero(stays))


def _cut(counts: NDArray[np.int64], stay: int) -> float | None:
    """Where the weights above are as many as stay; within a bin as if they were spread evenly."""
    above = np.cumsum(counts[::-1])
    if stay == 0 or above[-1] < stay:
        return None
    place = int(np.searchsorted(above, stay))
    inside = 1 - (above[place] - stay) / counts[::-1][place]
    return round(float(-(place + inside) / _PER_DECADE), 4)


@dataclass(frozen=True)
class CurveReport:
    """What a layer was expected to lose, as the budget by measured error saw it.

    Attributes:
        sparsities: share of its weights that go, ascending.
        errors: relative error of the layer's output, with what stays made up for roughly.
    """

    sparsities: list[float]
    errors: list[float]


@dataclass(frozen=True)
class StepReport:
    """A step of the way through the graph: an input, an output, layers, or where ways meet.

    Attributes:
        name: of the node or tensor.
        op_type: of the node; ``input`` or ``output`` for tensors.
        layers: names of the layers in it; none where ways meet.
        sources: numbers of the steps that it comes from, in the list of steps.
    """

    name: str
    op_type: str
    layers: list[str]
    sources: list[int]

    @classmethod
    def of(cls, steps: Sequence[Any]) -> list[StepReport]:
        """Take over what `graph.steps` found."""
        return [cls(s.name, s.op_type, list(s.layers), list(s.sources)) for s in steps]
