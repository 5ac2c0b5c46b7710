"""Refit layers in graph order: each on what the already pruned layers before it hand on.

The dense and the pruned model are run side by side, stage by stage. A stage is the layers that
share an input. Their targets are the dense model's outputs; where a layer's output is added to a
skip path, the target also repays the error that the skip path already carries.

Evidence of a layer is in memory only while its stage lasts. A large weight is decided on block by
block, after some of its neurons have been looked at as its jury.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.batches import Batches, BatchRange
from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.multiplying import multiplier_for
from onnx_sipp.calibration.runner import decides
from onnx_sipp.calibration.samples import Samples
from onnx_sipp.calibration.segments import SegmentedRun
from onnx_sipp.evidences import EvidenceMaker, gain_of, starting
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.tail import UNLIMITED, find_tail
from onnx_sipp.idle import Idle, find_idle, read_elsewhere
from onnx_sipp.keeping.outcomes import OutcomeForm
from onnx_sipp.layer_sums import Gatherer, Sums
from onnx_sipp.measures import Measured
from onnx_sipp.memory import release_memory
from onnx_sipp.outcome import Settled
from onnx_sipp.output_errors import OUTPUT_BATCHES, OutputErrors
from onnx_sipp.places import Place, stages_of
from onnx_sipp.progress import Progress
from onnx_sipp.pruned import PrunedWeights, bias_place
from onnx_sipp.pruning.cells import per_unit
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.mixing import Choice
from onnx_sipp.pruning.removal import input_scale
from onnx_sipp.pruning.selection import positive
from onnx_sipp.rectified import Rectifier
from onnx_sipp.store import LiveTensors, TensorStore
from onnx_sipp.weights import Weight

__all__ = ["IMPACT_SAMPLES", "Decider", "Look", "Refitter"]

Float = NDArray[np.floating]
# Told the index of a weight, and its evidence (or that of its jury, if it comes in blocks).
Look = Callable[[int, Evidence], None]
# Samples whose outputs tell what changing one layer does.
IMPACT_SAMPLES = 256


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


class Refitter:
    """Passes over the layers of a model in graph order.

    Args:
        dense: the lowered model; is not changed.
        weights: all prunable weights.
        measured: their statistics.
        samples: calibration and held-out samples.
        execution: how models are run.
        store: keeps pruned weights.
        mask: name of an input that tells padding from data, None if there is none.
    """

    def __init__(
        self,
        dense: Lowered,
        weights: Sequence[Weight],
        measured: Sequence[Measured],
        samples: Samples,
        execution: Execution,
        store: TensorStore,
        mask: str | None = None,
    ) -> None:
        self._dense, self._weights, self._measured = dense, weights, measured
        self._execution, self._store = execution, store
        self._multiplier = multiplier_for(execution.providers)
        self._flow, self._mask = Flow(dense), mask
        self._decides = decides(dense)
        self._outputs: OutputErrors | None = None
        self._shared: dict[int, Evidence] = {}
        self._idle: Sequence[Idle] = ()
        self._part: BatchRange | None = None
        self._hasty = False
        places = [
            Place(index, weight, layer, find_tail(dense, self._flow, layer))
            for index, weight in enumerate(weights)
            for layer in weight.layers
        ]
        self._tails = {place.layer.name: place.tail for place in places}
        self._juries = {place.index: place.jury for place in places}
        self._tied = read_elsewhere(dense, self._flow, weights)
        self._stages = stages_of(places, self._flow)
        asked = [self._asked(s, dense=side) for s in self._stages for side in (True, False)]
        taps = sorted(set().union(*asked) | {o.name for o in dense.proto.graph.output})
        batching = execution.plan(dense, [taps], samples.calibration)
        self._take_sums_of(Batches(samples, batching))

    def _take_sums_of(self, batches: Batches) -> None:
        self._batches, threads = batches, self._execution.threads or 1
        judges = batches.judges
        limit = self._execution.memory.sums
        multiplier = self._multiplier
        self._gatherer = Gatherer(judges, self._mask, threads, limit, self._part, multiplier)
        self._rectifier = Rectifier(judges, self._mask, threads, multiplier)
        count = len(batches.samples.calibration)
        self._makes = EvidenceMaker(self._dense, self._tails, self._measured, count, self._hasty)

    def on_some(self, count: int) -> Refitter:
        """The same that only compares: in haste, and on some samples if there are more.

        Args:
            count: of calibration samples, evenly spread.
        """
        fewer = copy(self)
        fewer._hasty = True  # noqa: SLF001 - of the same class
        samples = self._batches.samples
        some = replace(samples, calibration=samples.calibration.at_most(count))
        fewer._take_sums_of(replace(self._batches, samples=some))  # noqa: SLF001
        return fewer

    def on_batches(self, batches: range, sizes: Sequence[int]) -> Refitter:
        """The same that sees some successive batches only, to gather their share of the sums.

        Args:
            batches: their numbers.
            sizes: see `batch_sizes`.
        """
        fewer = copy(self)
        fewer._part = BatchRange(batches.start, sizes)  # noqa: SLF001 - of the same class
        fewer._take_sums_of(replace(self._batches, seen=batches))  # noqa: SLF001
        return fewer

    def batch_sizes(self) -> list[int]:
        """Samples of every batch: those to calibrate on, then those held out."""
        return self._batches.sizes

    def biases(self, settled: Sequence[Settled] = ()) -> dict[str, str]:
        """By layer name, the stored constant that takes up a change of the bias.

        Args:
            settled: per weight; biases that the original does not have are named only if these make
                use of them.
        """
        shifts = [bool(found.shift.any()) for found in settled] or [False] * len(self._weights)
        places = [bias_place(weight, self._tails) for weight in self._weights]
        return {
            weight.layers[0].name: place.name
            for weight, place, shifted in zip(self._weights, places, shifts, strict=True)
            if place is not None and (shifted or not self._dense.is_spare(place.name))
        }

    @property
    def form(self) -> OutcomeForm:
        """How outcomes of passes are told."""
        places = [bias_place(weight, self._tails) for weight in self._weights]
        names = [None if place is None else place.name for place in places]
        return OutcomeForm(self._dense, self._weights, names, self._store)

    def idle(self, model: Lowered | None = None) -> list[Idle]:
        """Per weight, what does nothing in a model with the same nodes, None for the dense one."""
        model = model or self._dense
        return find_idle(model, self._flow, self._weights, self.biases(), self._tied)

    def leave_out(self, idle: Sequence[Idle]) -> None:
        """Take weights that do nothing out of all choices from now on.

        Args:
            idle: per weight.
        """
        self._idle = idle

    @property
    def shared(self) -> Mapping[int, Evidence]:
        """Evidence of weights that layers share, by their index; known after `survey`."""
        return self._shared

    def know(self, shared: Mapping[int, Evidence], idle: Sequence[Idle]) -> None:
        """Take what another one has found out of the same model.

        Args:
            shared: see `shared`.
            idle: see `leave_out`.
        """
        self._shared, self._idle = dict(shared), idle

    @property
    def has_cuts(self) -> bool:
        """Whether a layer's output is cut off by the next node."""
        return any(tail is not None and tail.span != UNLIMITED for tail in self._tails.values())

    def survey(self, look: Look, progress: Progress) -> None:
        """Gather evidence for every weight from the dense model alone, summed over its layers.

        Args:
            look: called for every weight.
            progress: told after every stage.
        """
        for index, sums in self.sums(progress):
            look(index, self.evidence(index, sums))

    def sums(self, progress: Progress) -> Iterator[tuple[int, list[Sums]]]:
        """Gather the sums of every weight from the dense model alone.

        Yields:
            Index of the weight, and per layer that sees it alike, its sums.
        """
        sums: dict[int, list[Sums]] = {}
        run = self._run(self._dense, dense=True, pruned=True)
        for stage in self._stages:
            tensors = run.advance()
            places = [place.jury for place in stage]
            for place, found in self._gatherer.observe(places, tensors, tensors):
                index, weight = place.index, place.weight
                if not weight.seen_alike(place.layer):
                    continue  # it has other inputs
                sums.setdefault(index, []).append(found)
                if len(sums[index]) == sum(map(weight.seen_alike, weight.layers)):
                    yield index, sums.pop(index)
            progress.advance(1, len(self._stages))
        run.close()

    def evidence(self, index: int, sums: Sequence[Sums]) -> Evidence:
        """What the sums of a weight tell; of one that layers share, `refit` will need it again.

        Args:
            index: of the weight.
            sums: see `sums`; they are used up.
        """
        jury = self._juries[index]
        found = self._left(jury, self._makes.of(jury, sums))
        if len(self._weights[index].layers) > 1:
            self._shared[index] = found
        return found

    def refit(
        self,
        decider: Decider,
        progress: Progress,
        *,
        sequential: bool,
        rectify: bool = False,
        before: PrunedWeights | None = None,
        look: Look | None = None,
    ) -> PrunedWeights:
        """One pass in graph order.

        A weight that several layers share is decided when the first of them comes, on the evidence
        from `survey`, which must have been called: that is summed over all of them.

        Args:
            decider: decides on every weight.
            progress: told after every stage.
            sequential: whether layers are refitted on the activations of the pruned model, rather
                than on those of the dense one.
            rectify: whether what the next node cuts off is free; see `rectified`.
            before: an earlier pass to start from, None for the dense model.
            look: called for every weight with its new values if another pass follows.
        """
        pruned = PrunedWeights(
            self._dense, self._weights, self._tails, self._store, remember=look is not None
        )
        runs = [self._run(self._dense, dense=True, pruned=not sequential)]
        if sequential:
            runs.append(self._run(pruned.model, dense=False, pruned=True))
        for stage in self._stages:
            tensors = [run.advance() for run in runs]
            jury: Evidence | None = None
            for place, evidence in self._evidences(stage, tensors, before, pruned):
                if place.block is None:
                    jury = evidence
                    scores = partial(self._scores, place, evidence, before)
                    decider.open(place.index, evidence, place.weight.units, scores)
                    continue
                choice = self._decided(place, evidence, decider)
                if rectify and len(place.weight.blocks) == len(place.weight.layers) == 1:
                    judged = evidence if choice.bias.any() else evidence.without_bias()
                    choice = self._rectifier.refine(place, judged, choice, tensors[0], tensors[-1])
                judge = evidence.check or evidence.fit
                power = float(np.sum(evidence.rate * judge.spread()))
                pruned.write(place.index, place.block, choice, power)
                release_memory()
                if look is not None and pruned.is_complete(place.index):
                    new = place.weight.of_jury(partial(pruned.weight, place.index))
                    look(place.index, replace(jury or evidence, weight=new))
                    jury = None
            progress.advance(1, len(self._stages))
        for run in runs:
            run.close()
        return pruned

    def _evidences(
        self,
        stage: Sequence[Place],
        tensors: Sequence[Sequence[LiveTensors]],
        before: PrunedWeights | None,
        pruned: PrunedWeights,
    ) -> Iterator[tuple[Place, Evidence]]:
        """Evidence of what is to be decided in a stage, one block after the other."""
        own = [place for place in stage if len(place.weight.layers) == 1]
        parts = [part for place in own for part in place.parts]
        for place, sums in self._gatherer.observe(parts, tensors[0], tensors[-1]):
            yield place, self._left(place, self._makes.of(place, [sums], before))
        for place in stage:
            if len(place.weight.layers) > 1 and not pruned.is_complete(place.index):
                found = self._shared[place.index]
                evidence = replace(found, weight=starting(place, before), hasty=self._hasty)
                yield place, self._left(place, evidence)

    def _decided(self, place: Place, evidence: Evidence, decider: Decider) -> Choice:
        index, number = place.index, place.block
        assert number is not None
        if len(place.weight.blocks) == 1:
            return decider.decide(index, evidence)
        return decider.decide_block(index, number, evidence)

    def _scores(
        self, place: Place, jury: Evidence, before: PrunedWeights | None
    ) -> Iterator[Float]:
        """|w| · gain · rms(a) of all blocks of a weight; positive where the weight is not zero."""
        scale = input_scale(jury.fit)
        gain = np.abs(gain_of(place.weight, place.tail))
        for number, block in enumerate(place.weight.blocks):
            weight = starting(replace(place, block=number), before)
            if self._idle:
                weight = self._idle[place.index].cleared(weight, block.rows)
            scores = np.abs(weight) * (gain[:, block.rows, None] * scale)
            yield positive(*per_unit(place.weight.cells, scores, weight))

    def is_whole(self, index: int) -> bool:
        """Whether a weight comes in one block."""
        return len(self._weights[index].blocks) == 1

    def impact(self, choices: Mapping[int, Choice]) -> float:
        """Relative squared error of the model's outputs when a few weights alone are changed.

        Args:
            choices: what becomes of them, by the index of the weight, which is in one block.
        """
        changed = PrunedWeights(self._dense, self._weights, self._tails, self._store)
        for index, choice in choices.items():
            changed.write(index, 0, choice, 1.0)
        return self.output_error(changed.model, IMPACT_SAMPLES)

    def output_error(self, model: Lowered, samples: int | None = None) -> float:
        """Relative squared error of a changed model's outputs; see `OutputErrors.of`.

        Args:
            model: with the same outputs as the dense one.
            samples: about how many to look at, held-out ones first; None for all of the first
                batches.
        """
        if self._outputs is None:
            first = list(islice(self._batches.feeds(held_out_first=True), OUTPUT_BATCHES))
            self._outputs = OutputErrors(self._dense, self._execution, first)
        batches = None if samples is None else -(-samples // self._batches.batching.size)
        return self._outputs.of(model, batches)

    def _run(self, model: Lowered, *, dense: bool, pruned: bool) -> SegmentedRun:
        """A run that gives what is needed of the dense model, of the pruned one, or of both."""
        wanted = [
            (self._asked(stage, dense=True) if dense else set())
            | (self._asked(stage, dense=False) if pruned else set())
            for stage in self._stages
        ]
        return SegmentedRun(
            model, self._flow, wanted, self._batches.feeds(),
            self._execution.store, threads=self._execution.threads,
            providers=self._execution.providers,
        )  # fmt: skip

    def _asked(self, stage: Sequence[Place], *, dense: bool) -> set[str]:
        """Tensors that a stage needs of the dense, or of the pruned model."""
        names = {self._mask} if self._mask is not None and dense else set()
        for place in stage:
            if place.tail is None or self._decides or not dense:
                names.add(place.layer.activation)
            if place.tail is not None and dense:
                names.add(place.tail.output)
            if place.tail is not None and place.tail.skip is not None:
                names.add(place.tail.skip)
        return names

    def _left(self, place: Place, evidence: Evidence) -> Evidence:
        """Evidence without the weights that are left out."""
        return self._idle[place.index].taken_from(evidence, place.rows) if self._idle else evidence
