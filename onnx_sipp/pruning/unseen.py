"""Layers that no sample reached: nothing is known of them but their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.cells import alive_units, units
from onnx_sipp.pruning.deciding import best_of, decide
from onnx_sipp.pruning.importance import LayerStatistics
from onnx_sipp.pruning.methods import METHODS, Decision, Goal
from onnx_sipp.pruning.selection import apportion, kept_only

__all__ = ["decide_all", "is_blind", "share_out"]

_BLIND = ("magnitude", "random")


def share_out(
    sizes: Sequence[int], alive: Sequence[int], seen: Sequence[bool], keep: int
) -> tuple[NDArray[np.int64], int]:
    """Let every layer that was not seen keep the share of all.

    Args:
        sizes: units (weights, or cells of a pattern) per layer.
        alive: those of them that are not zero.
        seen: whether a sample reached the layer.
        keep: how many weights stay in all.

    Returns:
        Per layer how many stay, which counts for layers that were not seen, and how many that
        leaves for the others together. These have room for them.
    """
    counts = apportion(np.array(sizes), np.array(alive), keep)
    return counts, int(counts[np.array(seen, np.bool_)].sum())


def decide_all(
    layers: Sequence[LayerStatistics],
    goal: Goal,
    method: str,
    allocation: str,
    rng: np.random.Generator,
) -> list[Decision]:
    """Choose what stays in every layer, whether it was seen or not.

    A layer that was not seen keeps its largest weights, to the share of all; all of them if a bound
    is asked for, since none can be given. Methods that look at nothing but weights treat all alike.

    Args:
        layers: statistics, in graph order; those without patches were not seen.
        goal: see `deciding.decide`.
        method: see `deciding.decide`.
        allocation: see `deciding.decide`.
        rng: see `deciding.decide`.
    """
    seen = [layer.patches > 0 for layer in layers]
    if all(seen) or is_blind(method, allocation):
        return decide(layers, goal, method, allocation, rng)
    alive = [alive_units(layer.cells, layer.weight) for layer in layers]
    counts = np.array(alive)
    if goal.keep is not None:
        sizes = [units(layer.cells, layer.weight.size) for layer in layers]
        counts, rest = share_out(sizes, alive, seen, goal.keep)
        goal = replace(goal, keep=rest)
    known = [layer for layer, reached in zip(layers, seen, strict=True) if reached]
    made = iter(decide(known, goal, method, allocation, rng) if known else [])
    return [
        next(made) if reached else _largest(layer, int(count))
        for layer, reached, count in zip(layers, seen, counts, strict=True)
    ]


def is_blind(method: str, allocation: str) -> bool:
    """Whether a method looks at nothing but weights."""
    return METHODS[method].importance in _BLIND and allocation != "sipp"


def _largest(layer: LayerStatistics, count: int) -> Decision:
    kept = best_of(layer, np.abs(layer.weight), count)
    weight = kept_only(layer.weight, kept).astype(np.float64)
    return Decision(kept, weight, np.zeros((2, *kept.shape[:2]), np.bool_))
