"""What the budget by measured error needs to know of a layer, so that its evidence can go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.candidates import output_costs
from onnx_sipp.pruning.error_budget import condensed, error_budget, relative_error
from onnx_sipp.pruning.evidence import Evidence

__all__ = [
    "Curve",
    "Impact",
    "Survey",
    "curve_of",
    "error_counts",
    "importance_of",
    "surveys_of",
]

# Points of a curve that is shown: at every 2.5 % of the weights.
_SHOWN = 41


# Weights of a layer up to which every one has a place in the curve.
_SMALL = 1 << 18


@dataclass(frozen=True)
class Impact:
    """What pruning one layer alone does to the outputs of the model.

    Attributes:
        by_neuron: whether the same share of every neuron did less harm than the layer's best.
        share: of the layer's weights that were kept in the trial.
        error: relative squared error of the model's outputs.
        exponent: of the ratio of this error to the layer's own, as it counts in the budget.
    """

    by_neuron: bool
    share: float
    error: float
    exponent: float = 1.0

    def mild(self) -> Impact:
        """Half way to no impact at all, and the layer's best weights wherever they are."""
        return replace(self, by_neuron=False, exponent=0.5)


@dataclass(frozen=True)
class Survey:
    """The curve of error against kept weights of one layer.

    Attributes:
        costs: of removing weights, in ascending order.
        times: how many weights each cost stands for, None for one.
        power: of the output, by which costs become relative errors.
        capacity: number of non-zero weights.
    """

    costs: NDArray[np.floating]
    times: NDArray[np.int64] | None
    power: float
    capacity: int


@dataclass(frozen=True)
class Curve:
    """A survey, to look at.

    Attributes:
        sparsities: shares of the weights that go, ascending.
        errors: relative error of the output, the square root of what the budget sums.
    """

    sparsities: tuple[float, ...]
    errors: tuple[float, ...]


def curve_of(survey: Survey) -> Curve:
    """A few points of the curve."""
    times = np.ones(survey.costs.size) if survey.times is None else survey.times
    gone = np.concatenate([[0.0], np.cumsum(times)])
    lost = np.concatenate([[0.0], np.cumsum(survey.costs * times, dtype=np.float64)])
    sparsities = np.linspace(0, 1, _SHOWN)
    squares = np.interp(sparsities * gone[-1], gone, lost) / max(survey.power, 1e-30)
    errors = np.sqrt(np.clip(squares, 0, 1))
    return Curve(tuple(map(float, sparsities.round(4))), tuple(map(float, errors)))


def surveys_of(
    evidence: Evidence, ways: Sequence[bool], size: int, capacity: int, threads: int
) -> dict[bool, Survey]:
    """Follow a layer's weights as they are removed.

    Args:
        evidence: of the layer, or of its jury.
        ways: whether every neuron is to keep the same share; several are asked for together.
        size: units of the whole layer: weights, or cells of a pattern.
        capacity: how many of them are not zero.
        threads: for the greedy order.
    """
    found = {}
    for way, scaled in output_costs(evidence, ways, threads).items():
        judged = replace(evidence, by_neuron=way)
        # A jury has its share of the layer's power.
        power = judged.power * (size / evidence.units)
        if scaled.size == size or size <= _SMALL:
            found[way] = Survey(np.sort(np.resize(scaled, size)), None, power, capacity)
        else:
            means, times = condensed(scaled, size)
            found[way] = Survey(means, times, power, capacity)
    return found


def importance_of(survey: Survey, impact: Impact) -> float:
    """What the error of a layer counts: as much as shows at the model's outputs.

    Args:
        survey: of the dense layer; later, most costs are those of weights that have gone already.
        impact: of the layer.
    """
    own = _log_loss(_own_error(survey, impact.share))
    return float((_log_loss(impact.error) / max(own, 1e-9)) ** impact.exponent)


def error_counts(
    surveys: Sequence[Survey],
    keep: int,
    floor: float | Sequence[float],
    importance: Sequence[float] = (),
) -> list[int]:
    """The budget by measured error.

    Args:
        surveys: per layer.
        keep: how many weights stay in all.
        floor: see `error_budget`.
        importance: per layer, what its error counts; all the same if there is none.
    """
    return error_budget(
        [survey.costs for survey in surveys],
        [survey.power for survey in surveys],
        [survey.capacity for survey in surveys],
        keep,
        importance or None,
        floor,
        times=[survey.times for survey in surveys],
    )


def _own_error(survey: Survey, share: float) -> float:
    size = survey.costs.size if survey.times is None else int(survey.times.sum())
    return relative_error(survey.costs, survey.power, round(share * size), survey.times)


def _log_loss(error: float) -> float:
    return float(-np.log1p(-min(error, 0.95)))
