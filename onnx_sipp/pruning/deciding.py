"""Decide on layers: from statistics of all of them to the weights that stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.cells import alive_units, per_unit
from onnx_sipp.pruning.halves import by_halves, sipp_counts, within_bound
from onnx_sipp.pruning.importance import IMPORTANCES, LayerStatistics
from onnx_sipp.pruning.methods import METHODS, Decision, Goal
from onnx_sipp.pruning.selection import Mask, kept_only, select, top

__all__ = ["best_of", "decide", "layer_counts"]

Scores = NDArray[np.floating]


def decide(
    layers: Sequence[LayerStatistics],
    goal: Goal,
    method: str,
    allocation: str,
    rng: np.random.Generator,
) -> list[Decision]:
    """Choose what stays in every layer.

    Args:
        layers: statistics, in graph order.
        goal: with ``keep`` the total is met exactly, as far as there are non-zero weights.
        method: key of `METHODS`.
        allocation: one of `allocations_of` the method.
        rng: source of randomness.
    """
    chosen = METHODS[method]
    scores = [IMPORTANCES[chosen.importance].score(layer, rng) for layer in layers]
    seeds = [int(seed) for seed in rng.integers(2**63, size=len(layers))]
    if goal.epsilon is not None:
        return [
            within_bound(layer, s, goal, chosen, seed)
            for layer, s, seed in zip(layers, scores, seeds, strict=True)
        ]
    assert goal.keep is not None
    if allocation != "sipp":
        masks = _selected(layers, scores, goal.keep, allocation)
        return [_ranked(layer, mask) for layer, mask in zip(layers, masks, strict=True)]
    counts = sipp_counts(layers, goal)
    decisions = [
        by_halves(layer, s, m, chosen, goal.delta, seed)
        for layer, s, m, seed in zip(layers, scores, counts, seeds, strict=True)
    ]
    return _filled(layers, decisions, goal.keep)


def _selected(
    layers: Sequence[LayerStatistics], scores: Sequence[Scores], keep: int, allocation: str
) -> list[Mask]:
    """Masks of the best weights, or of the best cells where a pattern asks for that."""
    total = sum(layer.weight.size for layer in layers)
    if any(layer.cells is not None and layer.cells.kept for layer in layers):
        return [
            best_of(layer, score, round(keep * layer.weight.size / total))
            for layer, score in zip(layers, scores, strict=True)
        ]
    parts = [
        per_unit(layer.cells, score, layer.weight)
        for layer, score in zip(layers, scores, strict=True)
    ]
    chosen = select([s for s, _ in parts], [size for _, size in parts], keep, allocation)
    return [
        mask if layer.cells is None else layer.cells.whole(mask) & (layer.weight != 0)
        for layer, mask in zip(layers, chosen, strict=True)
    ]


def best_of(layer: LayerStatistics, score: Scores, keep: int) -> Mask:
    """The units of one layer with the highest scores.

    Args:
        layer: with the weight and the pattern's cells.
        score: shape of the weight, not negative.
        keep: how many units stay.
    """
    magnitude = np.abs(layer.weight)
    if layer.cells is None:
        return top(score, magnitude, keep)
    return layer.cells.best(score, magnitude, keep)


def layer_counts(layers: Sequence[LayerStatistics], goal: Goal, allocation: str) -> list[int]:
    """How many units each layer keeps by an allocation, magnitudes ranking them.

    Args:
        layers: statistics, in graph order.
        goal: with ``keep``.
        allocation: a key of `ALLOCATIONS`, or ``"sipp"``.
    """
    rng = np.random.default_rng(0)
    made = decide(layers, goal, "magnitude", allocation, rng)
    return [
        alive_units(layer.cells, decision.kept)
        for layer, decision in zip(layers, made, strict=True)
    ]


def _ranked(layer: LayerStatistics, kept: Mask) -> Decision:
    sampled = np.zeros((2, *layer.weight.shape[:2]), np.bool_)
    return Decision(kept, kept_only(layer.weight, kept).astype(np.float64), sampled)


def _filled(
    layers: Sequence[LayerStatistics], decisions: list[Decision], keep: int
) -> list[Decision]:
    """Spend what the halves could not use on the largest weights without sensitivity."""
    missing = keep - sum(int(d.kept.sum()) for d in decisions)
    if missing <= 0:
        return decisions
    free = [np.where(d.kept, 0, layer.weight) for d, layer in zip(decisions, layers, strict=True)]
    sizes = np.concatenate([np.abs(weight).ravel() for weight in free])
    extra = top(sizes, sizes, missing)
    ends = np.cumsum([weight.size for weight in free])[:-1]
    result = []
    for part, layer, decision in zip(np.split(extra, ends), layers, decisions, strict=True):
        added = part.reshape(layer.weight.shape)
        weight = np.where(added, layer.weight, decision.weight)
        result.append(Decision(decision.kept | added, weight, decision.sampled))
    return result
