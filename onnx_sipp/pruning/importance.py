"""Scores of weights: the larger, the sooner kept.

A new importance is one function of `LayerStatistics` and one line in `IMPORTANCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.cells import Cells

__all__ = ["IMPORTANCES", "LayerStatistics", "Needs"]

Scores = NDArray[np.floating]


@dataclass(frozen=True)
class LayerStatistics:
    """What calibration tells of one layer; an importance asks only for what it needs.

    Attributes:
        weight: ``[group, out, fan_in]``.
        sensitivity_max: SiPP's sensitivities, ``max`` form, shape of the weight.
        sensitivity_mean: the same in the ``mean`` form, None unless asked for.
        second_moment: E[a²] of what each weight multiplies, ``[group, 1, fan_in]`` or the shape of
            the weight, None unless asked for.
        patches: patches per sample.
        cells: of the pattern that masks have to follow, None if there is none.
    """

    weight: NDArray[np.floating]
    sensitivity_max: Scores
    sensitivity_mean: Scores | None = None
    second_moment: NDArray[np.float64] | None = None
    patches: int = 1
    cells: Cells | None = None


@dataclass(frozen=True)
class Needs:
    """An importance and the statistics that it needs beside the ``max`` sensitivities."""

    score: Callable[[LayerStatistics, np.random.Generator], Scores]
    mean: bool = False
    moments: bool = False


def _magnitude(layer: LayerStatistics, rng: np.random.Generator) -> Scores:
    """|w|."""
    del rng
    scores: Scores = np.abs(layer.weight)
    return scores


def _wanda(layer: LayerStatistics, rng: np.random.Generator) -> Scores:
    """|w| times the root mean square of its input (Wanda, arXiv 2306.11695, eq. 1)."""
    del rng
    assert layer.second_moment is not None
    scores: Scores = np.abs(layer.weight) * np.sqrt(layer.second_moment)
    return scores


def _random(layer: LayerStatistics, rng: np.random.Generator) -> Scores:
    """Uniform noise: the floor that every method has to beat."""
    return rng.random(layer.weight.shape, dtype=np.float32)


def _sensitivity_mean(layer: LayerStatistics, rng: np.random.Generator) -> Scores:
    """SiPP's ``mean`` sensitivities, as the authors' deterministic variant ranks them."""
    del rng
    assert layer.sensitivity_mean is not None
    return layer.sensitivity_mean


def _sensitivity_max(layer: LayerStatistics, rng: np.random.Generator) -> Scores:
    """SiPP's ``max`` sensitivities, which the bounds are about."""
    del rng
    return layer.sensitivity_max


IMPORTANCES: Mapping[str, Needs] = {
    "magnitude": Needs(_magnitude),
    "wanda": Needs(_wanda, moments=True),
    "random": Needs(_random),
    "sensitivity-mean": Needs(_sensitivity_mean, mean=True),
    "sensitivity-max": Needs(_sensitivity_max),
}
