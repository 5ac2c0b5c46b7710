"""What methods decide by statistics alone, and a model that is pruned by that and not refitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.measures import Measured
from onnx_sipp.options import Options
from onnx_sipp.outcome import Outcome, Settled
from onnx_sipp.pruning.blocks import BlockwiseDecisions, Parted
from onnx_sipp.pruning.cells import alive_units
from onnx_sipp.pruning.importance import LayerStatistics
from onnx_sipp.pruning.methods import Decision, Goal
from onnx_sipp.pruning.unseen import decide_all
from onnx_sipp.refitting.idle import Idle
from onnx_sipp.refitting.pruned import PrunedWeights
from onnx_sipp.rewriting import BlockWriter, stored_values
from onnx_sipp.store import TensorStore
from onnx_sipp.weights import Weight

__all__ = ["blockwise", "capacity", "decisions", "is_small", "mask_only", "statistics_now"]

Float = NDArray[np.floating]

# Weights that may be in memory all together, with some statistics of each.
SMALL = 1 << 25


def mask_only(
    dense: Lowered,
    weights: Sequence[Weight],
    measured: Sequence[Measured],
    goal: Goal,
    options: Options,
    store: TensorStore,
) -> Outcome:
    """Drop weights and leave the others as they are, or reweighted where they were sampled."""
    decided = decisions(measured, goal, options, [options.seed])
    model = dense.copy(store)
    writer, settled = BlockWriter(model), []
    for index, weight in enumerate(weights):
        sampled = []
        for number, block in enumerate(weight.blocks):
            made = decided(index, number)
            old = block.stored_in(dense)
            writer.write(block, stored_values(block, old, made.weight, made.kept))
            sampled.append(made.sampled)
        shift = np.zeros(weight.shape[:2])
        settled.append(Settled(shift, np.concatenate(sampled, axis=2)))
    return Outcome(model, settled)


def decisions(
    measured: Sequence[Measured],
    goal: Goal,
    options: Options,
    seed: Sequence[int],
    before: PrunedWeights | None = None,
    idle: Sequence[Idle] = (),
) -> Callable[[int, int], Decision]:
    """What the method decides on each block.

    With the new weights of an earlier pass, if any, and without those that do nothing.
    """
    if is_small(measured):
        now = [statistics_now(measured, before, idle, index) for index in range(len(measured))]
        rng = np.random.default_rng(seed)
        made = decide_all(now, goal, options.method, options.allocation, rng)
        return lambda index, _: made[index]
    return blockwise(measured, goal, options.method, options.allocation, seed, before, idle)


def is_small(measured: Sequence[Measured]) -> bool:
    """Whether all weights and their statistics may be in memory together."""
    weights = [found.weight for found in measured]
    whole = all(len(weight.blocks) == 1 for weight in weights)
    return whole and sum(weight.size for weight in weights) <= SMALL


def blockwise(
    measured: Sequence[Measured],
    goal: Goal,
    method: str,
    allocation: str,
    seed: Sequence[int],
    before: PrunedWeights | None,
    idle: Sequence[Idle],
) -> BlockwiseDecisions:
    """What a method decides where not all weights fit in memory, block by block.

    Args:
        measured: statistics of the weights.
        goal: what is to be reached.
        method: key of `METHODS`.
        allocation: one of `allocations_of` the method.
        seed: of what is sampled.
        before: an earlier pass to start from, None for the dense model.
        idle: per weight, what is left out; empty for nothing.
    """
    layers = [
        Parted(
            [
                partial(statistics_now, measured, before, idle, index, number)
                for number in range(len(found.weight.blocks))
            ],
            found.weight.units,
            found.weight.shape[0] * found.weight.shape[1],
            capacity(found.weight, idle[index] if idle else None),
            found.patches,
        )
        for index, found in enumerate(measured)
    ]
    return BlockwiseDecisions(layers, goal, method, allocation, seed)


def capacity(weight: Weight, idle: Idle | None) -> int:
    """What can be kept: weights, or cells of a pattern."""
    if idle is None or idle.is_empty:
        return weight.alive
    left = (idle.cleared(block.matrix, block.rows) for block in weight.blocks)
    return sum(alive_units(weight.cells, block) for block in left)


def statistics_now(
    measured: Sequence[Measured],
    before: PrunedWeights | None,
    idle: Sequence[Idle],
    index: int,
    number: int | None = None,
) -> LayerStatistics:
    """Statistics of a weight or a block with the weights that a pass starts from."""
    found, rows = measured[index], slice(None)
    if number is None:
        statistics = found.whole()
        weight = statistics.weight if before is None else before.whole(index)
    else:
        statistics, rows = found.block(number), found.weight.blocks[number].rows
        weight = statistics.weight if before is None else before.weight(index, number)
    return _updated(statistics, idle[index].cleared(weight, rows) if idle else weight)


def _updated(statistics: LayerStatistics, weight: Float) -> LayerStatistics:
    """The statistics with the weights of this round; a sensitivity is |w| times what it weighs."""
    old = np.abs(statistics.weight)
    ratio = np.divide(np.abs(weight), old, out=np.zeros(old.shape), where=old > 0)
    mean = statistics.sensitivity_mean
    return replace(
        statistics,
        weight=weight,
        sensitivity_max=statistics.sensitivity_max * ratio,
        sensitivity_mean=None if mean is None else mean * ratio,
    )
