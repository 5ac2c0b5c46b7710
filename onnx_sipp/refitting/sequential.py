"""Refit layers in graph order: each on what the already pruned layers before it hand on.

The dense and the pruned model are run side by side, stage by stage. A stage is the layers that
share an input. Their targets are the dense model's outputs; where a layer's output is added to a
skip path, the target also repays the error that the skip path already carries.

Evidence of a layer is in memory only while its stage lasts. A large weight is decided on block by
block, after some of its neurons have been looked at as its jury.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.allocator import release_memory
from onnx_sipp.calibration.segments import SegmentedRun
from onnx_sipp.progress import Progress
from onnx_sipp.pruning.blockwise_selection import positive
from onnx_sipp.pruning.cells import per_unit
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.mixing import Choice
from onnx_sipp.pruning.removal import input_scale
from onnx_sipp.refitting.evidences import EvidenceMaker, gain_of, starting
from onnx_sipp.refitting.gathering import Gatherer
from onnx_sipp.refitting.idle import Idle
from onnx_sipp.refitting.places import Place
from onnx_sipp.refitting.pruned import PrunedWeights
from onnx_sipp.refitting.rectified import Rectifier
from onnx_sipp.store import LiveTensors
from onnx_sipp.threads import side_by_side

__all__ = ["Decider", "Look", "Pass", "Stage"]

Float = NDArray[np.floating]
Stage = Sequence[Place]
# Told the index of a weight, and its evidence (or that of its jury, if it comes in blocks).
Look = Callable[[int, Evidence], None]


class Decider(Protocol):
    """Decides what becomes of weights."""

    def decide(self, index: int, evidence: Evidence) -> Choice:
        """Decide on a whole weight."""

    def open(
        self, index: int, jury: Evidence, size: int, scores: Callable[[], Iterator[Float]]
    ) -> None:
        """Begin with a weight that comes in blocks.

        Args:
            index: of the weight.
            jury: evidence of some of its neurons.
            size: number of units in all.
            scores: gives, block by block, what the blocks are compared by.
        """

    def decide_block(self, index: int, number: int, evidence: Evidence) -> Choice:
        """Decide on one block of the weight that was opened last."""


@dataclass(frozen=True)
class Pass:
    """One pass over the layers of a model.

    Attributes:
        decider: decides on every weight.
        gatherer: of sums.
        makes: evidence of them.
        rectifier: makes what the next node cuts off free; None if nothing is to be gained there.
        shared: evidence of weights that layers share, by their index.
        idle: per weight, what is left out of all choices; empty if nothing is.
        threads: of onnxruntime.
        before: an earlier pass to start from, None for the dense model.
        look: called for every weight with its new values if another pass follows.
    """

    decider: Decider
    gatherer: Gatherer
    makes: EvidenceMaker
    rectifier: Rectifier | None
    shared: Mapping[int, Evidence]
    idle: Sequence[Idle]
    threads: int
    before: PrunedWeights | None = None
    look: Look | None = None

    def over(
        self,
        stages: Sequence[Stage],
        runs: Sequence[SegmentedRun],
        pruned: PrunedWeights,
        progress: Progress,
    ) -> None:
        """Decide on every weight of some stages, and write it down.

        Args:
            stages: in graph order.
            runs: of the dense model, and of the pruned one if layers are refitted on that; their
                tensors stay alive.
            pruned: takes what is decided.
            progress: told after every stage.
        """
        for stage in stages:
            tensors = self._advanced(runs)
            self._over(stage, tensors[0], tensors[-1], pruned)
            progress.advance(1, len(stages))

    def _advanced(self, runs: Sequence[SegmentedRun]) -> list[list[LiveTensors]]:
        """The next stage of all runs: side by side where a second thread can be borrowed."""
        if self.threads > 1:  # which the batches of each share, or onnxruntime has
            return [run.advance() for run in runs]
        return side_by_side(SegmentedRun.advance, runs, 1)

    def _over(
        self,
        stage: Stage,
        dense: Sequence[LiveTensors],
        after: Sequence[LiveTensors],
        pruned: PrunedWeights,
    ) -> None:
        jury: Evidence | None = None
        for place, evidence in self._evidences(stage, dense, after, pruned):
            if place.block is None:
                jury = evidence
                scores = partial(self._scores, place, evidence)
                self.decider.open(place.index, evidence, place.weight.units, scores)
                continue
            choice = self._decided(place, evidence)
            if self.rectifier and len(place.weight.blocks) == len(place.weight.layers) == 1:
                judged = evidence if choice.bias.any() else evidence.without_bias()
                choice = self.rectifier.refine(place, judged, choice, dense, after)
            judge = evidence.check or evidence.fit
            power = float(np.sum(evidence.rate * judge.spread()))
            pruned.write(place.index, place.block, choice, power, too_large=evidence.too_large)
            release_memory(place.evidence_bytes)
            if self.look is not None and pruned.is_complete(place.index):
                new = place.weight.of_jury(partial(pruned.weight, place.index))
                self.look(place.index, replace(jury or evidence, weight=new))
                jury = None

    def _evidences(
        self,
        stage: Stage,
        dense: Sequence[LiveTensors],
        after: Sequence[LiveTensors],
        pruned: PrunedWeights,
    ) -> Iterator[tuple[Place, Evidence]]:
        """Evidence of what is to be decided in a stage, one block after the other."""
        own = [place for place in stage if len(place.weight.layers) == 1]
        parts = [part for place in own for part in place.parts]
        for place, sums in self.gatherer.observe(parts, dense, after):
            yield place, self._left(place, self.makes.of(place, [sums], self.before))
        for place in stage:
            if len(place.weight.layers) > 1 and not pruned.is_complete(place.index):
                found, start = self.shared[place.index], starting(place, self.before)
                evidence = replace(found, weight=start, hasty=self.makes.hasty)
                yield place, self._left(place, evidence)

    def _decided(self, place: Place, evidence: Evidence) -> Choice:
        index, number = place.index, place.block
        assert number is not None
        if len(place.weight.blocks) == 1:
            return self.decider.decide(index, evidence)
        return self.decider.decide_block(index, number, evidence)

    def _scores(self, place: Place, jury: Evidence) -> Iterator[Float]:
        """|w| · gain · rms(a) of all blocks of a weight; positive where the weight is not zero."""
        scale = input_scale(jury.fit)
        gain = np.abs(gain_of(place.weight, place.tail))
        for number, block in enumerate(place.weight.blocks):
            weight = starting(replace(place, block=number), self.before)
            if self.idle:
                weight = self.idle[place.index].cleared(weight, block.rows)
            scores = np.abs(weight) * (gain[:, block.rows, None] * scale)
            yield positive(*per_unit(place.weight.cells, scores, weight))

    def _left(self, place: Place, evidence: Evidence) -> Evidence:
        """Evidence without the weights that are left out."""
        return self.idle[place.index].taken_from(evidence, place.rows) if self.idle else evidence
