"""What became of the weights, but for their values: those are in the pruned model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.pruning.survey import Curve

__all__ = ["Outcome", "Refit", "Respent", "Settled"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Refit:
    """How the refit of a weight went.

    Attributes:
        candidate: which way of choosing won; in most of its blocks, if there are several.
        damping: λ that the refit ended with, the largest of its blocks; 0 if it was used in none.
        error_before: relative squared error on held-out samples without the refit.
        error: the same with what is used.
        too_large: see `Evidence`.
    """

    candidate: str
    damping: float
    error_before: float
    error: float
    too_large: bool = False

    @classmethod
    def merged(cls, parts: Sequence[Refit], powers: Sequence[float]) -> Refit:
        """Sum up the blocks of a weight.

        Args:
            parts: one per block.
            powers: of the outputs that their errors are relative to.
        """
        if len(parts) == 1:
            return parts[0]
        shares = np.array(powers) / (sum(powers) or 1.0)
        return cls(
            candidate=Counter(part.candidate for part in parts).most_common(1)[0][0],
            damping=max(part.damping for part in parts),
            error_before=float(shares @ [part.error_before for part in parts]),
            error=float(shares @ [part.error for part in parts]),
            too_large=any(part.too_large for part in parts),
        )


@dataclass(frozen=True)
class Settled:
    """What became of one weight.

    Attributes:
        shift: ``[group, out]``, what its bias gained.
        sampled: ``[2, group, out]``, which neuron halves were sampled.
        refit: how the refit went, None if none was asked for.
    """

    shift: Float64
    sampled: NDArray[np.bool_]
    refit: Refit | None = None


@dataclass(frozen=True)
class Respent:
    """What became of the weights on dead paths.

    Attributes:
        weights: per weight, how many were freed; as many others took their places.
        neurons: per weight, ``[group, out]``: neurons that reach no output and were left without
            weights.
        errors: relative error of the model's outputs before, and after every pass that was used.
    """

    weights: Sequence[int] = ()
    neurons: Sequence[NDArray[np.bool_]] = ()
    errors: Sequence[float] = ()


@dataclass(frozen=True)
class Outcome:
    """A pruned model.

    Attributes:
        model: the lowered one, with the new weights and biases.
        settled: per weight, what became of it.
        plan: which budget won, "" if there was one only.
        plans: relative error of the outputs with each budget, on up to 16 batches, the held-out
            ones first.
        biases: by layer name, the stored constant that took up a change of the bias.
        notes: what the user must know.
        respent: what was found on dead paths.
        curves: per weight, the error against the sparsity that the budget expected; None where
            there was no look at it. Empty if budgets are not by measured error.
        rounds: in how many it was made.
    """

    model: Lowered
    settled: list[Settled]
    plan: str = ""
    plans: Mapping[str, float] = field(default_factory=dict)
    biases: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    respent: Respent = field(default_factory=Respent)
    curves: Sequence[Curve | None] = ()
    rounds: int = 1
