"""Neuron halves: how many weights each of them keeps, and whether they are ranked or sampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.budget import Halves, allocate_halves
from onnx_sipp.pruning.certificate import (
    DELTA,
    SLACK,
    C,
    epsilon_sampled,
    half_counts,
    half_sums,
    log_factor,
    samples_for,
)
from onnx_sipp.pruning.importance import LayerStatistics
from onnx_sipp.pruning.methods import Decision, Goal, Method
from onnx_sipp.pruning.sampling import sample_halves
from onnx_sipp.pruning.selection import Mask, kept_only, top_rows

__all__ = ["by_halves", "neuron_halves", "neuron_sizes", "sipp_counts", "within_bound"]

Counts = NDArray[np.int64]


def neuron_halves(layers: Sequence[LayerStatistics], delta: float = DELTA) -> Halves:
    """The neuron halves of all layers, as the budget sees them.

    Only weights with a positive sensitivity count as capacity: the others cannot help a bound.
    """
    difficulty, priority, capacity = [], [], []
    for layer in layers:
        sums = half_sums(layer.sensitivity_max, layer.weight)
        difficulty.append(log_factor(layer.patches, delta) * sums.ravel())
        neurons = layer.weight.shape[0] * layer.weight.shape[1]
        priority.append(np.full(sums.size, 1 / neurons))
        capacity.append(_needed(layer).ravel())
    return Halves(*(np.concatenate(parts) for parts in (difficulty, priority, capacity)))


def neuron_sizes(layers: Sequence[LayerStatistics]) -> Counts:
    """Non-zero weights of each of the halves of `neuron_halves`."""
    sizes = [half_counts(layer.weight != 0, layer.weight).ravel() for layer in layers]
    return np.concatenate(sizes)


def sipp_counts(layers: Sequence[LayerStatistics], goal: Goal) -> list[Counts]:
    """The m of each neuron half, ``[2, group, out]`` per layer.

    Args:
        layers: statistics, in graph order.
        goal: with ``keep``.
    """
    assert goal.keep is not None
    halves = neuron_halves(layers, goal.delta)
    counts = allocate_halves(halves, goal.keep)
    shapes = [(2, *layer.weight.shape[:2]) for layer in layers]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    return [part.reshape(s) for part, s in zip(np.split(counts, ends), shapes, strict=True)]


def by_halves(
    layer: LayerStatistics,
    scores: NDArray[np.floating],
    counts: Counts,
    method: Method,
    delta: float,
    seed: int,
) -> Decision:
    """Keep so many weights of each half, ranked or sampled.

    Args:
        layer: statistics.
        scores: of the weights, by which they are ranked.
        counts: ``[2, group, out]``, how many stay.
        method: says which halves are sampled.
        delta: failure probability of the bounds.
        seed: of what is drawn.
    """
    weight = _halves_of(layer.weight)
    scores = np.broadcast_to(scores, weight.shape)
    kept = top_rows(scores, np.abs(weight), counts)
    ranked = kept_only(weight, kept).astype(np.float64)
    wants = _wants_sampling(layer, kept, counts, method, delta)
    if not wants.any():
        return Decision(np.any(kept, axis=0), ranked.sum(axis=0), wants)
    sensitivity = np.broadcast_to(layer.sensitivity_max, weight.shape)
    drawn = sample_halves(
        weight[wants], sensitivity[wants], counts[wants], seed, np.flatnonzero(wants)
    )
    ranked[wants] = drawn
    return Decision((ranked != 0).any(axis=0), ranked.sum(axis=0), wants)


def within_bound(
    layer: LayerStatistics,
    scores: NDArray[np.floating],
    goal: Goal,
    method: Method,
    seed: int,
) -> Decision:
    """Keep as few weights as the bound ε allows in every neuron half.

    Args:
        layer: statistics.
        scores: of the weights, by which they are ranked.
        goal: with ``epsilon``.
        method: says which halves are sampled.
        seed: of what is drawn.
    """
    assert goal.epsilon is not None
    # Weights without sensitivity help no bound, so they go first, behind any score.
    scores = np.where(layer.sensitivity_max > 0, scores, -0.5)
    sums = half_sums(layer.sensitivity_max, layer.weight)
    deterministic = _fewest_ranked(layer, scores, goal.epsilon)
    random = samples_for(sums, goal.epsilon, log_factor(layer.patches, goal.delta))
    random = np.minimum(random, _needed(layer))
    if method.mixing == "never":
        return by_halves(layer, scores, deterministic, method, goal.delta, seed)
    if method.mixing == "always":
        return by_halves(layer, scores, random, method, goal.delta, seed)
    counts = np.minimum(random, deterministic)
    return by_halves(layer, scores, counts, method, goal.delta, seed)


def _wants_sampling(
    layer: LayerStatistics, kept: Mask, counts: Counts, method: Method, delta: float
) -> Mask:
    """Which halves to sample; a half that is kept whole needs none (THEORY: adaptive mix)."""
    if method.mixing == "never":
        return np.zeros(counts.shape, np.bool_)
    sums = half_sums(layer.sensitivity_max, layer.weight)
    open_ended = (counts > 0) & (counts < _needed(layer))
    if method.mixing == "always":
        return open_ended
    dropped = np.where(kept.any(axis=0), 0, layer.sensitivity_max)
    deterministic = C * half_sums(dropped, layer.weight)
    random = epsilon_sampled(sums, counts, log_factor(layer.patches, delta))
    return open_ended & (deterministic > random)


def _fewest_ranked(layer: LayerStatistics, scores: NDArray[np.floating], epsilon: float) -> Counts:
    """Per half, the fewest top-ranked weights that leave C Σ s of the rest at most ε."""
    weight = _halves_of(layer.weight)
    used = weight != 0
    keyed = np.where(used, np.broadcast_to(scores, weight.shape), -1.0)
    order = np.lexsort((-np.abs(weight), -keyed), axis=-1)
    sensitivity = kept_only(np.broadcast_to(layer.sensitivity_max, used.shape), used).astype(
        np.float64
    )
    ranked = np.take_along_axis(sensitivity, order, axis=-1)
    # rest[k] = Σ of the sensitivities after the first k.
    rest = np.cumsum(ranked[..., ::-1], axis=-1)[..., ::-1]
    counts: Counts = np.sum(C * rest > (1 - SLACK) * epsilon, axis=-1).astype(np.int64)
    return counts


def _needed(layer: LayerStatistics) -> Counts:
    """Weights of each neuron half that some sample needs, ``[2, group, out]``."""
    return half_counts(layer.sensitivity_max > 0, layer.weight)


def _halves_of(weight: NDArray[np.floating]) -> NDArray[np.floating]:
    """``[2, group, out, fan_in]``: the weights with those of the other sign set to zero."""
    return np.stack([np.maximum(weight, 0), np.minimum(weight, 0)])
