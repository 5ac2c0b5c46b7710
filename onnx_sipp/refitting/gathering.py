"""Sums for the refit of layers: inputs of the pruned model against targets of the dense one.

A target is the dense model's effective output (see `graph.tail`). Where that is added to a skip
path, it also repays the error that the skip path already carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from onnx_sipp.calibration.segments import Tensor
from onnx_sipp.graph.layers import Layer
from onnx_sipp.memory import Plan
from onnx_sipp.refitting.batches import BatchRange
from onnx_sipp.refitting.grouping import Piece, fitting, joined
from onnx_sipp.refitting.layer_sums import Sums
from onnx_sipp.refitting.places import Place, product_of
from onnx_sipp.statistics.gram import Gram
from onnx_sipp.statistics.multiplying import NUMPY, Multiplier
from onnx_sipp.store import LiveTensors
from onnx_sipp.threads import blas_threads, side_by_side, turns
from onnx_sipp.unfolding.base import MatMulUnfolding, pieces, without_padding
from onnx_sipp.unfolding.thinning import Thinning, patches_in

__all__ = ["Gatherer"]

# Sums of a layer from which on its batches are not parted among threads, which have sums each.
_WIDE_BYTES = 64 << 20


class Gatherer:
    """Gathers the sums of the layers of a stage.

    Args:
        judges: per batch, whether its samples are held out.
        mask: name of an input that tells padding from data, None if there is none.
        threads: batches worked on at the same time.
        limit: bytes of sums in memory at a time; those of a single place may take more.
        part: which batches of all these are, None if they are all.
        multiplier: of wide layers.
        hasty: see `Thinning`.
    """

    def __init__(
        self,
        judges: Sequence[bool],
        mask: str | None,
        threads: int,
        limit: int = Plan.sums,
        part: BatchRange | None = None,
        multiplier: Multiplier = NUMPY,
        *,
        hasty: bool = False,
    ) -> None:
        self._judges, self._mask, self._threads, self._limit = judges, mask, threads, limit
        self._part, self._multiplier, self._hasty = part, multiplier, hasty

    def observe(
        self,
        places: Sequence[Place],
        dense: Sequence[LiveTensors],
        pruned: Sequence[LiveTensors],
    ) -> Iterator[tuple[Place, Sums]]:
        """Gather least squares of the layers of a stage; inputs pruned, targets dense.

        The batches are gone through as often as is needed for the sums to fit into memory.
        """
        for unfolding in dict.fromkeys(place.layer.unfolding for place in places):
            plain = [p for p in places if p.layer.unfolding == unfolding and p.tail is not None]
            grams: tuple[Gram, Gram] | None = None
            for group in fitting(plain, lambda place: place.sums_bytes, self._limit):
                sums = self._sums(group, dense, pruned, grams)
                grams = sums[0].gram, sums[0].judge_gram
                yield from zip(group, sums, strict=True)
        for place in places:
            if place.tail is None:
                yield place, self._sums_by_weight(place, dense, pruned)

    def _sums(
        self,
        places: Sequence[Place],
        dense: Sequence[LiveTensors],
        pruned: Sequence[LiveTensors],
        grams: tuple[Gram, Gram] | None,
    ) -> list[Sums]:
        # Every part has the same batches in every run, and they are added up in order.
        groups, _, fan_in = places[0].layer.view.matrix
        wide = 2 * 8 * groups * fan_in**2 + max(place.sums_bytes for place in places) > _WIDE_BYTES
        batches = range(len(self._judges))
        threads = self._threads if wide else None

        def work(part: Iterable[int]) -> list[Sums]:
            return self._sums_of_batches(
                places, part, dense, pruned, threads, with_gram=grams is None
            )

        if wide:
            with blas_threads(self._threads):
                gathered = [work(batches)]
        else:
            gathered = side_by_side(work, turns(batches, self._threads), self._threads)
        for other in gathered[1:]:
            for own, theirs in zip(gathered[0], other, strict=True):
                own.merge(theirs)
        first = gathered[0][0]
        for sums in gathered[0]:  # they have the same input: one Gram matrix serves all
            sums.gram, sums.judge_gram = grams or (first.gram, first.judge_gram)
        return gathered[0]

    def _sums_of_batches(
        self,
        places: Sequence[Place],
        batches: Iterable[int],
        dense: Sequence[LiveTensors],
        pruned: Sequence[LiveTensors],
        threads: int | None,
        *,
        with_gram: bool,
    ) -> list[Sums]:
        layer = places[0].layer
        sums = [Sums.empty(place.shape, self._multiplier) for place in places]
        if with_gram:
            sums[0].make_room()
        shapes = [live.shape(layer.activation) for live in pruned]
        counts = patches_in(layer.unfolding, layer.view.matrix, shapes)
        every = counts if self._part is None else self._part.every(counts)
        thinning = Thinning(layer.unfolding, layer.view.matrix, every, hasty=self._hasty)
        pairs = self._pairs(places, thinning, batches, dense, pruned)
        for judge, columns, outputs in joined(pairs):
            if with_gram:
                sums[0].gram_of(judge=judge).update(columns)
            for place, own, output in zip(places, sums, outputs, strict=True):
                own.cross_of(judge=judge).update(columns, product_of(place, output), threads)
        return sums

    def _pairs(
        self,
        places: Sequence[Place],
        thinning: Thinning,
        batches: Iterable[int],
        dense: Sequence[LiveTensors],
        pruned: Sequence[LiveTensors],
    ) -> Iterator[Piece]:
        """Patches of layers with the same input, and per layer its targets."""
        layer = places[0].layer
        first = 0 if self._part is None else self._part.first
        for batch in batches:
            before, after = dense[batch], _alike(layer, dense[batch], pruned[batch])
            targets = [_target(place, before, after) for place in places]
            activation = after[layer.activation]
            if self._mask is not None and isinstance(layer.unfolding, MatMulUnfolding):
                mask = dense[batch][self._mask] != 0
                activation = without_padding(activation, mask)
                targets = [without_padding(target, mask) for target in targets]
            pairs = layer.unfolding.pairs(activation, targets)
            for columns, outputs in thinning.of(first + batch, pairs):
                yield self._judges[batch], columns, outputs

    def _sums_by_weight(
        self,
        place: Place,
        dense: Sequence[LiveTensors],
        pruned: Sequence[LiveTensors],
    ) -> Sums:
        """For layers whose output is no plain product: the target is the dense weight's own."""
        layer = place.layer
        weight = place.matrix
        sums = Sums.empty(place.shape, self._multiplier)
        sums.make_room()
        for before, after, judge in zip(dense, pruned, self._judges, strict=True):
            gram, cross = sums.gram_of(judge=judge), sums.cross_of(judge=judge)
            sides = before, _alike(layer, before, after)
            inputs = [side[layer.activation][None] for side in sides]
            for a, b in zip(*(pieces(layer.unfolding, x) for x in inputs), strict=True):
                gram.update(b.columns)
                cross.update(b.columns, weight @ a.columns)
        return sums


def _alike(
    layer: Layer, before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """The pruned model's tensors; the dense model's where they are others in number.

    So it is where the pruned model takes another branch, or another number of iterations.
    """
    name = layer.activation
    return before if name in before and before[name].shape != after[name].shape else after


def _target(place: Place, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Tensor:
    """The dense output, with what the skip path lacks by now; in the place of the output."""
    tail = place.tail
    assert tail is not None
    output = before[tail.output]
    if tail.skip is None:
        return output
    skip = before[tail.skip]
    if skip.shape != output.shape:
        return output
    return output.astype(np.float32) + (skip.astype(np.float32) - after[tail.skip])
