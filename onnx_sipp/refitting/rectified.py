"""Refit of layers whose output is cut off by the next node, as by Relu: what is cut off is free.

Where the dense model's value lies outside the span of that node, any value of the pruned model
beyond the same limit is as good, so a target there counts only as far as it is crossed:

    t' = max(p, hi) where t >= hi,  min(p, lo) where t <= lo,  else t

with p the present prediction. Least squares towards t' and new predictions take turns; the error
behind the cut never rises by that (majorisation), and held-out samples say when to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.tail import UNLIMITED
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.mixing import Choice, resettle
from onnx_sipp.pruning.selection import kept_only
from onnx_sipp.refitting.places import Place, product_of
from onnx_sipp.statistics.cross import Cross
from onnx_sipp.statistics.gram import suited
from onnx_sipp.statistics.multiplying import NUMPY, Multiplier
from onnx_sipp.store import LiveTensors
from onnx_sipp.threads import side_by_side, turns
from onnx_sipp.unfolding.base import Float32, MatMulUnfolding, without_padding
from onnx_sipp.unfolding.thinning import Thinning, patches_in

__all__ = ["Rectifier"]

R = TypeVar("R")


class Rectifier:
    """Refits layers towards what the next node lets through.

    Args:
        judges: per batch, whether its samples are held out.
        mask: name of an input that tells padding from data, None if there is none.
        threads: batches worked on at the same time.
        multiplier: of wide layers.
    """

    def __init__(
        self,
        judges: Sequence[bool],
        mask: str | None,
        threads: int,
        multiplier: Multiplier = NUMPY,
    ) -> None:
        self._judges, self._mask, self._threads = judges, mask, threads
        self._multiplier = multiplier

    def refine(
        self,
        place: Place,
        evidence: Evidence,
        choice: Choice,
        dense: Sequence[LiveTensors],
        pruned: Sequence[LiveTensors],
    ) -> Choice:
        """Refit the kept weights of a layer again, if its output is cut off and it helps.

        Args:
            place: the layer, its weight in one block.
            evidence: that the choice was made on.
            choice: what has become of the layer; comes back as it is where nothing is gained.
            dense: per batch, tensors of the dense model.
            pruned: the same of the model as it is pruned before the layer.
        """
        tail = place.tail
        if tail is None or tail.span == UNLIMITED or not choice.damping or not dense:
            return choice
        if not evidence.is_seen:  # what was seen is too large to learn from
            return choice
        if tail.skip is not None and dense[0][tail.skip].shape != dense[0][tail.output].shape:
            return choice
        best, lowest, current = choice, np.inf, choice
        turns = evidence.effort.turns
        for turn in range(turns + 1):
            error = self._error(place, current, dense, pruned)
            if error >= lowest:
                break
            best, lowest = current, error
            if turn < turns:
                cross = self._cross(place, current, dense, pruned)
                fit = evidence.fit.with_targets(cross)
                current = resettle(replace(evidence, fit=fit), current, threads=self._threads)
        if best is choice:
            return choice
        # Whoever looks at the sums themselves should not be worse off than without a refit.
        error = evidence.error(best.weight)
        return replace(best, error=error) if error <= choice.error_before else choice

    def _error(
        self,
        place: Place,
        choice: Choice,
        dense: Sequence[LiveTensors],
        pruned: Sequence[LiveTensors],
    ) -> float:
        """Squared error behind the cut on held-out samples, summed."""
        cut = _Cut(place, choice, self._multiplier)

        def work(batches: Sequence[int]) -> float:
            seen = self._seen(place, cut, batches, dense, pruned)
            return sum(cut.error(target, found) for _, target, found, _ in seen)

        return sum(self._side_by_side(work, held_out=True))

    def _cross(
        self,
        place: Place,
        choice: Choice,
        dense: Sequence[LiveTensors],
        pruned: Sequence[LiveTensors],
    ) -> Cross:
        """Sums towards targets that count as far as they are crossed."""
        cut = _Cut(place, choice, self._multiplier)

        def work(batches: Sequence[int]) -> Cross:
            cross = Cross(*place.shape, self._multiplier)
            for columns, target, found, after in self._seen(place, cut, batches, dense, pruned):
                own = cut.reachable(target, found) - after
                cross.update(columns, product_of(place, own))
            return cross

        first, *others = self._side_by_side(work, held_out=False)
        for other in others:
            first.merge(other)
        return first

    def _side_by_side(self, work: Callable[[Sequence[int]], R], *, held_out: bool) -> list[R]:
        """Deal out the batches of one kind of sample among threads."""
        batches = [batch for batch, judge in enumerate(self._judges) if judge == held_out]
        return side_by_side(work, turns(batches, self._threads), self._threads)

    def _seen(
        self,
        place: Place,
        cut: _Cut,
        batches: Sequence[int],
        dense: Sequence[LiveTensors],
        pruned: Sequence[LiveTensors],
    ) -> Iterator[tuple[Float32, Float32, Float32, Float32]]:
        """Patches; what the dense and the pruned model have there; and the skip path's part of it.

        They are the patches that the layer's evidence is from. Targets and what is found are with
        the skip path, if there is one; it is 0 if not.
        """
        layer, tail = place.layer, place.tail
        assert tail is not None
        shapes = [live.shape(layer.activation) for live in pruned]
        counts = patches_in(layer.unfolding, layer.view.matrix, shapes)
        thinning = Thinning(layer.unfolding, layer.view.matrix, counts)
        for batch in batches:
            values = [pruned[batch][layer.activation], dense[batch][tail.output]]
            if tail.skip is not None:
                values += [dense[batch][tail.skip], pruned[batch][tail.skip]]
            if self._mask is not None and isinstance(layer.unfolding, MatMulUnfolding):
                mask = dense[batch][self._mask] != 0
                values = [without_padding(value, mask) for value in values]
            pairs = layer.unfolding.pairs(values[0], values[1:])
            for columns, (output, *skips) in thinning.of(batch, pairs):
                before, after = skips or (np.zeros(1, np.float32), np.zeros(1, np.float32))
                yield columns, output + before, cut.predicted(columns) + after, after


class _Cut:
    """What a layer gives with new weights, before and behind the cut."""

    def __init__(self, place: Place, choice: Choice, multiplier: Multiplier) -> None:
        self._multiplier = suited(multiplier, place.shape[2])
        tail = place.tail
        assert tail is not None
        shape = (*place.shape[:2], 1)
        gain = tail.gain.reshape(shape)
        # In pieces: as a whole, the product in float64 would take room of its own.
        room = np.empty(choice.weight.shape, np.float32)
        self._weight = np.multiply(choice.weight, gain, out=room)
        shift = gain * choice.bias[..., None] + tail.offset.reshape(shape)
        self._shift = shift.astype(np.float32)
        self._low, self._high = (np.float32(limit) for limit in tail.span)

    def predicted(self, columns: Float32) -> Float32:
        """The effective output for patches ``[group, fan_in, n]``."""
        product = self._multiplier.hold(columns).times(self._weight)
        result: Float32 = product + self._shift
        return result

    def reachable(self, target: Float32, found: Float32) -> Float32:
        """The nearest values to what was found that are as good as the target."""
        below, above = np.minimum(found, self._low), np.maximum(found, self._high)
        high = target >= self._high
        low = (target <= self._low) & ~high
        result = kept_only(target, ~(low | high))
        result += kept_only(below, low)
        if high.any():
            result += kept_only(above, high)
        return result

    def error(self, target: Float32, found: Float32) -> float:
        """Squared error behind the cut, summed."""
        difference: NDArray[np.float32] = np.clip(found, self._low, self._high)
        difference -= np.clip(target, self._low, self._high)
        return float(np.einsum("gop,gop->", difference, difference, dtype=np.float64))
