"""The methods: from statistics of all layers to the weights that stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.budget import Halves, allocate_halves
from onnx_sipp.pruning.cells import alive_units, per_unit
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
from onnx_sipp.pruning.importance import IMPORTANCES, LayerStatistics
from onnx_sipp.pruning.sampling import sample_halves
from onnx_sipp.pruning.selection import (
    ALLOCATIONS,
    Mask,
    kept_only,
    select,
    top,
    top_rows,
)

__all__ = [
    "METHODS",
    "REFIT_ALLOCATIONS",
    "Decision",
    "Goal",
    "Method",
    "allocations_of",
    "best_of",
    "decide",
    "layer_counts",
    "neuron_halves",
    "neuron_sizes",
]

Counts = NDArray[np.int64]
Scores = NDArray[np.floating]


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
            _within(layer, s, goal, chosen, seed)
            for layer, s, seed in zip(layers, scores, seeds, strict=True)
        ]
    assert goal.keep is not None
    if allocation != "sipp":
        masks = _selected(layers, scores, goal.keep, allocation)
        return [_ranked(layer, mask) for layer, mask in zip(layers, masks, strict=True)]
    counts = _sipp_counts(layers, goal)
    decisions = [
        _by_halves(layer, s, m, chosen, goal.delta, seed)
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


def _needed(layer: LayerStatistics) -> Counts:
    """Weights of each neuron half that some sample needs, ``[2, group, out]``."""
    return half_counts(layer.sensitivity_max > 0, layer.weight)


def _sipp_counts(layers: Sequence[LayerStatistics], goal: Goal) -> list[Counts]:
    """The m of each neuron half, ``[2, group, out]`` per layer."""
    assert goal.keep is not None
    halves = neuron_halves(layers, goal.delta)
    counts = allocate_halves(halves, goal.keep)
    shapes = [(2, *layer.weight.shape[:2]) for layer in layers]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    return [part.reshape(s) for part, s in zip(np.split(counts, ends), shapes, strict=True)]


def _ranked(layer: LayerStatistics, kept: Mask) -> Decision:
    sampled = np.zeros((2, *layer.weight.shape[:2]), np.bool_)
    return Decision(kept, kept_only(layer.weight, kept).astype(np.float64), sampled)


def _halves_of(weight: NDArray[np.floating]) -> NDArray[np.floating]:
    """``[2, group, out, fan_in]``: the weights with those of the other sign set to zero."""
    return np.stack([np.maximum(weight, 0), np.minimum(weight, 0)])


def _by_halves(
    layer: LayerStatistics,
    scores: NDArray[np.floating],
    counts: Counts,
    method: Method,
    delta: float,
    seed: int,
) -> Decision:
    """Keep ``counts[2, group, out]`` weights of each half, ranked or sampled."""
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


def _within(
    layer: LayerStatistics,
    scores: NDArray[np.floating],
    goal: Goal,
    method: Method,
    seed: int,
) -> Decision:
    """Keep as few weights as the bound ε allows in every neuron half."""
    assert goal.epsilon is not None
    # Weights without sensitivity help no bound, so they go first, behind any score.
    scores = np.where(layer.sensitivity_max > 0, scores, -0.5)
    sums = half_sums(layer.sensitivity_max, layer.weight)
    deterministic = _fewest_ranked(layer, scores, goal.epsilon)
    random = samples_for(sums, goal.epsilon, log_factor(layer.patches, goal.delta))
    random = np.minimum(random, _needed(layer))
    if method.mixing == "never":
        return _by_halves(layer, scores, deterministic, method, goal.delta, seed)
    if method.mixing == "always":
        return _by_halves(layer, scores, random, method, goal.delta, seed)
    counts = np.minimum(random, deterministic)
    return _by_halves(layer, scores, counts, method, goal.delta, seed)


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
