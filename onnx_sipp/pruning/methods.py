"""The methods, what they are asked for and what they decide; `deciding` applies them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.certificate import DELTA
from onnx_sipp.pruning.selection import ALLOCATIONS, Mask

__all__ = ["METHODS", "REFIT_ALLOCATIONS", "Decision", "Goal", "Method", "allocations_of"]


@dataclass(frozen=True)
class Method:
    """How weights are chosen.

    Attributes:
        importance: key of `IMPORTANCES`; what ranks weights where they are not sampled.
        allocation: the default; a key of `ALLOCATIONS`, ``"sipp"``, or, with
            the ``mixed`` method, one of `REFIT_ALLOCATIONS`.
        mixing: per neuron half, ``"never"`` sample, ``"always"``, or where its bound is smaller.
    """

    importance: str
    allocation: str
    mixing: Literal["never", "always", "smaller-bound"] = "never"


# Budgets by measured error: of the layers' own outputs, weighed by what single layers do to the
# model's outputs, or whichever of them errs least at those outputs.
REFIT_ALLOCATIONS = ("auto", "error", "impact")

METHODS: Mapping[str, Method] = {
    "mixed": Method("magnitude", "auto"),
    "sipp-det": Method("sensitivity-mean", "global"),
    "sipp-rand": Method("sensitivity-max", "sipp", "always"),
    "sipp-hybrid": Method("sensitivity-max", "sipp", "smaller-bound"),
    "magnitude": Method("magnitude", "lamp"),
    "wanda": Method("wanda", "neuron"),
    "random": Method("random", "layer"),
}


@dataclass(frozen=True)
class Goal:
    """What the user asked for: a number of weights to keep, or a bound on every neuron half."""

    keep: int | None = None
    epsilon: float | None = None
    delta: float = DELTA


@dataclass(frozen=True)
class Decision:
    """What becomes of one layer.

    Attributes:
        kept: ``[group, out, fan_in]``, weights that are not zero afterwards.
        weight: same shape: the old weights where kept, reweighted where sampled, or refitted.
        sampled: ``[2, group, out]``, which neuron halves were sampled.
    """

    kept: Mask
    weight: NDArray[np.floating]
    sampled: Mask


def allocations_of(method: str) -> tuple[str, ...]:
    """The allocations that a method can work with, its default first."""
    default = METHODS[method].allocation
    if method == "mixed":
        return (*REFIT_ALLOCATIONS, *ALLOCATIONS, "sipp")
    others = ("sipp",) if METHODS[method].mixing != "never" else (*ALLOCATIONS, "sipp")
    return tuple(dict.fromkeys((default, *others)))
