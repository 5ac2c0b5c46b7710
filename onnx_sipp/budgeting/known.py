"""What a run knows of the dense model, to be handed to other processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx_sipp.budgeting.looks import Looks
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.methods import Goal
from onnx_sipp.refitting.idle import Idle

__all__ = ["Known"]


@dataclass(frozen=True)
class Known:
    """What a run knows of the dense model, and what it is to reach.

    Attributes:
        goal: with ``keep``.
        share: of its weights that a layer keeps where it is pruned alone.
        idle: per weight, what is left out of all choices; empty for nothing.
        capacities: per weight, how many units can be kept.
        looks: what was seen of its layers.
        shared: evidence of weights that layers share, by the index of the weight.
    """

    goal: Goal
    share: float
    idle: Sequence[Idle]
    capacities: Sequence[int]
    looks: Looks
    shared: Mapping[int, Evidence]
