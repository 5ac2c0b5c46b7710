"""What a run knows of the dense model, to be handed to other processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx_sipp.idle import Idle
from onnx_sipp.keeping.surveys import Surveys
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.methods import Goal
from onnx_sipp.pruning.survey import Impact, Survey

__all__ = ["Known", "Looked"]


@dataclass(frozen=True)
class Known:
    """What a run knows of the dense model, and what it is to reach.

    Attributes:
        goal: with ``keep``.
        share: of its weights that a layer keeps where it is pruned alone.
        idle: per weight, what is left out of all choices; empty for nothing.
        capacities: per weight, how many units can be kept.
        surveys: by whether every neuron keeps the same share: curves by the index of the weight.
        first: those of the dense model, nothing left out.
        impacts: by the index of the weight.
        shared: evidence of weights that layers share, likewise.
    """

    goal: Goal
    share: float
    idle: Sequence[Idle]
    capacities: Sequence[int]
    surveys: Surveys
    first: Surveys
    impacts: Mapping[int, Impact]
    shared: Mapping[int, Evidence]


@dataclass(frozen=True)
class Looked:
    """What a look at one weight has told.

    Attributes:
        index: of the weight.
        impact: None unless it was asked for.
        surveys: by way, its curve.
        shared: evidence to be used again; None where no other layer shares the weight.
    """

    index: int
    impact: Impact | None
    surveys: Mapping[bool, Survey]
    shared: Evidence | None
