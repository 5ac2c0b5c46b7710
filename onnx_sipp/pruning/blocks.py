"""Decide on layers that come in blocks of neurons, with one block in memory at a time.

First it is found out how many weights every block keeps; then each block is decided on by itself,
as if it were a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.blockwise_selection import positive, score_histogram, shares_of_top
from onnx_sipp.pruning.budget import Halves, allocate_halves
from onnx_sipp.pruning.cells import alive_units, per_unit
from onnx_sipp.pruning.deciding import decide
from onnx_sipp.pruning.halves import neuron_halves
from onnx_sipp.pruning.importance import IMPORTANCES, LayerStatistics
from onnx_sipp.pruning.methods import METHODS, Decision, Goal
from onnx_sipp.pruning.selection import apportion
from onnx_sipp.pruning.unseen import is_blind, share_out

__all__ = ["BlockwiseDecisions", "Parted"]

Counts = NDArray[np.int64]
Float = NDArray[np.floating]


@dataclass(frozen=True)
class Parted:
    """A layer whose statistics are read block by block.

    Attributes:
        blocks: each reads the statistics of some of its neurons.
        size: its units: weights, or cells of a pattern.
        neurons: how many it has.
        capacity: those of them that are not zero.
        patches: per sample; 0 if no sample reached it.
    """

    blocks: Sequence[Callable[[], LayerStatistics]]
    size: int
    neurons: int
    capacity: int
    patches: int


class BlockwiseDecisions:
    """What a method decides on every block.

    Args:
        layers: in graph order.
        goal: as for `deciding.decide`; a number of weights is met exactly.
        method: key of `METHODS`.
        allocation: one of `allocations_of` the method.
        seed: of everything random.
    """

    def __init__(
        self,
        layers: Sequence[Parted],
        goal: Goal,
        method: str,
        allocation: str,
        seed: Sequence[int],
    ) -> None:
        self._layers, self._goal, self._seed = layers, goal, tuple(seed)
        self._method, self._allocation = method, allocation
        blind = is_blind(method, allocation)
        self._seen = [blind or layer.patches > 0 for layer in layers]
        self.counts: list[list[int]] = []
        if goal.keep is not None:
            self.counts = self._shares(goal.keep)

    def __call__(self, index: int, number: int) -> Decision:
        """What becomes of a block, in the shape of its weight."""
        statistics = self._layers[index].blocks[number]()
        rng = self._rng(index, number)
        method, allocation, goal = self._method, self._allocation, self._goal
        if goal.keep is not None:
            goal = replace(goal, keep=self._count(index, number, statistics))
        if not self._seen[index]:
            everything = alive_units(statistics.cells, statistics.weight)
            keep = everything if goal.keep is None else goal.keep
            method, allocation, goal = "magnitude", "layer", Goal(keep=keep)
        elif allocation in ("global", "lamp"):
            allocation = "layer"
        return decide([statistics], goal, method, allocation, rng)[0]

    def _count(self, index: int, number: int, statistics: LayerStatistics) -> int:
        """How many units of a block stay."""
        if statistics.cells is None or not statistics.cells.kept:
            return self.counts[index][number]
        assert self._goal.keep is not None
        total = sum(layer.size for layer in self._layers)
        return round(self._goal.keep * statistics.weight.size / total)

    def _shares(self, keep: int) -> list[list[int]]:
        """Per layer and block, how many weights stay."""
        seen = self._seen
        sizes, capacities = [x.size for x in self._layers], [x.capacity for x in self._layers]
        even, left = share_out(sizes, capacities, seen, keep)
        known = [index for index, reached in enumerate(seen) if reached]
        found = self._of_seen(known, left) if known else {}
        for index, count in enumerate(even):
            if not seen[index]:
                found[index] = shares_of_top(partial(self._magnitudes, index), int(count))
        return [found[index] for index in range(len(seen))]

    def _of_seen(self, known: list[int], keep: int) -> dict[int, list[int]]:
        if self._allocation == "global":
            flat = shares_of_top(lambda: chain.from_iterable(map(self._scores, known)), keep)
            return self._by_layer(known, flat)
        if self._allocation == "neuron":
            return self._by_layer(known, self._by_neuron(known, keep))
        if self._allocation == "sipp":
            return self._by_layer(known, self._by_halves(known, keep))
        if self._allocation == "lamp":
            counts = _lamp_counts([self._scores(index) for index in known], keep)
        else:
            layers = [self._layers[index] for index in known]
            sizes, capacities = [x.size for x in layers], [x.capacity for x in layers]
            counts = apportion(np.array(sizes), np.array(capacities), keep)
        return {
            index: shares_of_top(partial(self._scores, index), int(count))
            for index, count in zip(known, counts, strict=True)
        }

    def _by_layer(self, known: Sequence[int], flat: Sequence[int]) -> dict[int, list[int]]:
        """Part counts of all blocks by layer."""
        rest = iter(flat)
        return {index: [next(rest) for _ in self._layers[index].blocks] for index in known}

    def _read(self, known: Sequence[int]) -> Iterator[tuple[Parted, LayerStatistics]]:
        for index in known:
            for read in self._layers[index].blocks:
                yield self._layers[index], read()

    def _scores(self, index: int) -> Iterator[Float]:
        """Scores of a layer block by block, 0 where the weight is."""
        importance = IMPORTANCES[METHODS[self._method].importance]
        for number, read in enumerate(self._layers[index].blocks):
            statistics = read()
            scores = importance.score(statistics, self._rng(index, number))
            yield positive(*per_unit(statistics.cells, scores, statistics.weight))

    def _magnitudes(self, index: int) -> Iterator[Float]:
        for _, statistics in self._read([index]):
            magnitude = np.abs(statistics.weight)
            yield positive(*per_unit(statistics.cells, magnitude, magnitude))

    def _rng(self, index: int, number: int) -> np.random.Generator:
        return np.random.default_rng([*self._seed, index, number])

    def _by_neuron(self, known: Sequence[int], keep: int) -> list[int]:
        """The same share of every neuron."""
        fan_ins: list[Counts] = []
        alive: list[Counts] = []
        for _, statistics in self._read(known):
            _, parts = per_unit(statistics.cells, statistics.weight, statistics.weight)
            alive.append(np.count_nonzero(parts, axis=-1).ravel())
            fan_ins.append(np.full(alive[-1].size, parts.shape[-1], np.int64))
        counts = apportion(np.concatenate(fan_ins), np.concatenate(alive), keep)
        return _sums(counts, [rows.size for rows in alive])

    def _by_halves(self, known: Sequence[int], keep: int) -> list[int]:
        """SiPP's convex program over the neuron halves of all layers."""
        parts, alive = [], []
        for layer, statistics in self._read(known):
            halves = neuron_halves([statistics], self._goal.delta)
            priority = np.full(halves.priority.size, 1 / layer.neurons)
            parts.append(replace(halves, priority=priority))
            alive.append(int(np.count_nonzero(statistics.weight)))
        names = ("difficulty", "priority", "capacity")
        merged = Halves(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))
        counts = _sums(allocate_halves(merged, keep), [p.capacity.size for p in parts])
        # What no half needs goes to weights without sensitivity.
        spare: Counts = np.array(alive, np.int64) - np.array(counts, np.int64)
        extra = apportion(spare, spare, keep - sum(counts))
        return [count + int(more) for count, more in zip(counts, extra, strict=True)]


def _sums(values: Counts, sizes: Sequence[int]) -> list[int]:
    """Sums of successive stretches."""
    return [int(part.sum()) for part in np.split(values, np.cumsum(sizes)[:-1])]


def _lamp_counts(layers: Sequence[Iterator[Float]], keep: int) -> Counts:
    """LAMP: one ranking of squared scores over the sum of all squares that are no smaller."""
    values, counts, owner = [], [], []
    for index, blocks in enumerate(layers):
        number, squares = score_histogram(blocks)
        above = np.cumsum(squares[::-1])[::-1]
        used = number > 0
        values.append(squares[used] / number[used] / above[used])
        counts.append(number[used])
        owner.append(np.full(int(used.sum()), index))
    order = np.argsort(-np.concatenate(values), kind="stable")
    sizes = np.concatenate(counts)[order]
    taken = np.clip(keep - (np.cumsum(sizes) - sizes), 0, sizes)
    found = np.bincount(np.concatenate(owner)[order], taken, minlength=len(layers))
    return found.astype(np.int64)
