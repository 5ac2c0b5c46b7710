"""Refit layers in graph order: each on what the already pruned layers before it hand on.

The dense and the pruned model are run side by side, stage by stage. A stage is the layers that
share an input. Their targets are the dense model's outputs; where a layer's output is added to a
skip path, the target also repays the error that the skip path already carries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.runner import Batching, Runner, joined, plan_batching
from onnx_sipp.calibration.samples import Samples
from onnx_sipp.calibration.segments import SegmentedRun, Tensor
from onnx_sipp.calibration.specs import Feed, InputSpec
from onnx_sipp.calibration.store import LiveTensors, TensorStore
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.layers import Layer
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.tail import Tail, find_tail
from onnx_sipp.progress import Progress
from onnx_sipp.pruning.mixing import Choice, Evidence
from onnx_sipp.statistics.gram import Cross, Gram, Regression
from onnx_sipp.threads import side_by_side
from onnx_sipp.unfolding import Float32, MatMulUnfolding, pieces, without_padding
from onnx_sipp.weights import Weight, stored_values

__all__ = ["Refitter"]

Decide = Callable[[int, Evidence], Choice]


@dataclass(frozen=True)
class _Place:
    """One layer of one weight, with what follows it."""

    index: int
    weight: Weight
    layer: Layer
    tail: Tail | None


class Refitter:
    """Passes over the layers of a model in graph order.

    Args:
        dense: the model; is not changed.
        weights: all prunable weights.
        sensitivities: SiPP's ``max`` sensitivities, per weight.
        samples: calibration and held-out samples.
        store: holds tensors between stages.
        batch_size: most samples at a time, None to choose.
        threads: of the runtime.
        providers: of the runtime.
        mask: name of an input that tells padding from data, None if there is none.
    """

    def __init__(
        self,
        dense: Model,
        weights: Sequence[Weight],
        sensitivities: Sequence[NDArray[np.floating]],
        samples: Samples,
        store: TensorStore,
        *,
        batch_size: int | None,
        threads: int,
        providers: Sequence[str] | None,
        mask: str | None = None,
    ) -> None:
        self._dense, self._weights, self._sensitivities = dense, weights, sensitivities
        self._flow = Flow(dense)
        self._threads, self._providers = threads, providers
        self._samples = samples
        self._store, self._mask = store, mask
        self._outputs: list[tuple[Feed, dict[str, Tensor]]] | None = None
        places = [
            _Place(index, weight, layer, find_tail(dense, self._flow, layer))
            for index, weight in enumerate(weights)
            for layer in weight.layers
        ]
        self._sharing = {
            layer.name for weight in weights if len(weight.layers) > 1 for layer in weight.layers
        }
        self._tails = {place.layer.name: place.tail for place in places}
        self._stages = _stages(places, self._flow)
        self._batching, self._inputs = self._plan(batch_size)
        self._judges = [held_out for held_out, _ in self._batches()]

    def _batches(self, *, held_out_first: bool = False) -> Iterator[tuple[bool, Feed]]:
        """All feeds, joined as planned, each with whether it is held out."""
        parts = [(self._samples.calibration, False)]
        if self._samples.held_out is not self._samples.calibration:
            parts.insert(0 if held_out_first else 1, (self._samples.held_out, True))
        for part, held_out in parts:
            for _, feed in joined(part, self._batching, self._inputs):
                yield held_out, feed

    def _plan(self, batch_size: int | None) -> tuple[Batching, tuple[InputSpec, ...]]:
        taps = [layer.activation for weight in self._weights for layer in weight.layers]
        runner = Runner(self._dense, taps, threads=self._threads, providers=self._providers)
        first = [feed for feed, _ in zip(self._samples.calibration, range(2), strict=False)]
        return plan_batching(runner, first, batch_size), runner.inputs

    @property
    def biases(self) -> dict[str, str]:
        """By layer name, the stored constant that takes up a change of the bias."""
        return {
            name: tail.bias.name
            for name, tail in self._tails.items()
            if tail is not None and tail.bias is not None and name not in self._sharing
        }

    def evidence(self, progress: Progress) -> list[Evidence]:
        """Evidence for every weight from the dense model alone, summed over its layers."""
        asked = [self._asked(s, dense=True) | self._asked(s, dense=False) for s in self._stages]
        run = self._run(self._dense, asked)
        sums: dict[int, list[_Sums]] = {}
        for stage in self._stages:
            tensors = run.advance()
            for place, found in self._observe(stage, tensors, tensors):
                sums.setdefault(place.index, []).append(found)
            progress.advance(1, len(self._stages))
        run.close()
        return [
            self._evidence(index, weight.matrix, sums[index])
            for index, weight in enumerate(self._weights)
        ]

    def impact(self, index: int, choice: Choice) -> float:
        """Relative squared error of the model's outputs when one weight alone is changed.

        Args:
            index: of the weight.
            choice: what becomes of it.
        """
        changed = self._dense.copy()
        self._write(changed, self._weights[index], choice)
        return self.output_error(changed)

    def output_error(self, model: Model, batches: int = 16) -> float:
        """Relative squared error of a changed model's floating-point outputs, their mean.

        Args:
            model: with the same outputs as the dense one.
            batches: how many to look at, the held-out ones first.
        """
        runner = Runner(model, threads=self._threads, providers=self._providers)
        if self._outputs is None:
            feeds = list(islice((b for b in self._batches(held_out_first=True)), batches))
            plain = Runner(self._dense, threads=self._threads, providers=self._providers)
            self._outputs = [(feed, plain.run(feed)) for _, feed in feeds]
        errors: dict[str, float] = {}
        powers: dict[str, float] = {}
        for feed, before in self._outputs:
            after = runner.run(feed)
            for name, old in before.items():
                if _comparable(old, after[name]):
                    difference = after[name].astype(np.float64) - old
                    errors[name] = errors.get(name, 0.0) + float(np.sum(difference**2))
                    powers[name] = powers.get(name, 0.0) + float(
                        np.sum(old.astype(np.float64) ** 2)
                    )
        shares = [error / powers[name] for name, error in errors.items() if powers[name] > 0]
        return float(np.mean(shares)) if shares else 0.0

    def apply(
        self, evidence: Sequence[Evidence], decide: Decide, progress: Progress
    ) -> tuple[Model, list[Choice]]:
        """Decide on every weight by given evidence, none knowing of the others.

        Args:
            evidence: per weight.
            decide: called with the index of a weight and its evidence.
            progress: told after every weight.
        """
        pruned = self._dense.copy()
        choices = []
        for index, found in enumerate(evidence):
            choices.append(decide(index, found))
            self._write(pruned, self._weights[index], choices[-1])
            progress.advance(1, len(evidence))
        return pruned, choices

    def refit(
        self, before: Sequence[Evidence], decide: Decide, progress: Progress
    ) -> tuple[Model, list[Choice], list[Evidence]]:
        """One pass in graph order.

        A weight that several layers share is decided when the first of them comes, on the evidence
        from before the pass: that is summed over all of them.

        Args:
            before: evidence before the pass, per weight, with the weights to start from.
            decide: called with the index of a weight and its evidence.
            progress: told after every stage.

        Returns:
            The pruned model, and per weight what was decided and the evidence, with the new weight.
        """
        pruned = self._dense.copy()
        dense_run = self._run(self._dense, [self._asked(s, dense=True) for s in self._stages])
        pruned_run = self._run(pruned, [self._asked(s, dense=False) for s in self._stages])
        choices: dict[int, Choice] = {}
        after = list(before)
        for stage in self._stages:
            tensors = dense_run.advance(), pruned_run.advance()
            own = [place for place in stage if len(place.weight.layers) == 1]
            for place, sums in self._observe(own, *tensors):
                start = before[place.index].weight
                found = self._evidence(place.index, start, [sums])
                after[place.index] = replace(found, by_neuron=before[place.index].by_neuron)
            for place in stage:
                index = place.index
                if index not in choices:
                    choices[index] = decide(index, after[index])
                    after[index] = replace(after[index], weight=choices[index].weight)
                    self._write(pruned, place.weight, choices[index])
            progress.advance(1, len(self._stages))
        dense_run.close()
        pruned_run.close()
        return pruned, [choices[index] for index in range(len(self._weights))], after

    def _run(self, model: Model, wanted: Sequence[set[str]]) -> SegmentedRun:
        return SegmentedRun(
            model, self._flow, wanted, (feed for _, feed in self._batches()), self._store,
            threads=self._threads, providers=self._providers,
        )  # fmt: skip

    def _asked(self, stage: Sequence[_Place], *, dense: bool) -> set[str]:
        """Tensors that a stage needs of the dense, or of the pruned model."""
        names = {self._mask} if self._mask is not None and dense else set()
        for place in stage:
            if place.tail is None or not dense:
                names.add(place.layer.activation)
            if place.tail is not None and dense:
                names.add(place.tail.output)
            if place.tail is not None and place.tail.skip is not None:
                names.add(place.tail.skip)
        return names

    def _observe(
        self,
        places: Sequence[_Place],
        dense: Sequence[LiveTensors],
        pruned: Sequence[LiveTensors],
    ) -> Iterator[tuple[_Place, _Sums]]:
        """Gather least squares of the layers of a stage; inputs pruned, targets dense."""
        for unfolding in dict.fromkeys(place.layer.unfolding for place in places):
            plain = [p for p in places if p.layer.unfolding == unfolding and p.tail is not None]
            if plain:
                yield from zip(plain, self._sums(plain, dense, pruned), strict=True)
        for place in places:
            if place.tail is None:
                yield place, self._sums_by_weight(place, dense, pruned)

    def _sums(
        self,
        places: Sequence[_Place],
        dense: Sequence[LiveTensors],
        pruned: Sequence[LiveTensors],
    ) -> list[_Sums]:
        # Every worker takes the same batches in every run, and they are added up in order.
        workers = min(self._threads, len(self._judges))
        parts = [range(worker, len(self._judges), workers) for worker in range(workers)]
        gathered = side_by_side(
            lambda part: self._sums_of_batches(places, part, dense, pruned), parts, workers
        )
        for other in gathered[1:]:
            for own, theirs in zip(gathered[0], other, strict=True):
                own.merge(theirs)
        for sums in gathered[0][1:]:  # they have the same input: one Gram matrix serves all
            sums.gram, sums.judge_gram = gathered[0][0].gram, gathered[0][0].judge_gram
        return gathered[0]

    def _sums_of_batches(
        self,
        places: Sequence[_Place],
        batches: Iterable[int],
        dense: Sequence[LiveTensors],
        pruned: Sequence[LiveTensors],
    ) -> list[_Sums]:
        layer = places[0].layer
        groups, _, fan_in = layer.view.matrix
        sums = [_Sums.empty(place.layer.view.matrix) for place in places]
        grams = {judge: Gram(groups, fan_in) for judge in (False, True)}
        for batch in batches:
            judge = self._judges[batch]
            targets = [_target(place, dense[batch], pruned[batch]) for place in places]
            activation = pruned[batch][layer.activation]
            if self._mask is not None and isinstance(layer.unfolding, MatMulUnfolding):
                mask = dense[batch][self._mask] != 0
                activation = without_padding(activation, mask)
                targets = [without_padding(target, mask) for target in targets]
            for columns, outputs in layer.unfolding.pairs(activation, targets):
                grams[judge].update(columns)
                for place, own, output in zip(places, sums, outputs, strict=True):
                    own.cross_of(judge=judge).update(columns, _product(place, output))
        sums[0].gram, sums[0].judge_gram = grams[False], grams[True]
        return sums

    def _sums_by_weight(
        self,
        place: _Place,
        dense: Sequence[LiveTensors],
        pruned: Sequence[LiveTensors],
    ) -> _Sums:
        """For layers whose output is no plain product: the target is the dense weight's own."""
        layer = place.layer
        groups, _, fan_in = layer.view.matrix
        weight = place.weight.as_seen_by(layer, place.weight.matrix).astype(np.float32)
        sums = _Sums.empty(layer.view.matrix)
        sums.gram, sums.judge_gram = Gram(groups, fan_in), Gram(groups, fan_in)
        for before, after, judge in zip(dense, pruned, self._judges, strict=True):
            gram, cross = sums.gram_of(judge=judge), sums.cross_of(judge=judge)
            inputs = [side[layer.activation][None] for side in (before, after)]
            for a, b in zip(*(pieces(layer.unfolding, x) for x in inputs), strict=True):
                gram.update(b.columns)
                cross.update(b.columns, weight @ a.columns)
        return sums

    def _evidence(
        self, index: int, weight: NDArray[np.floating], sums: Sequence[_Sums]
    ) -> Evidence:
        target = self._weights[index]
        total = sums[0]
        if len(sums) > 1:
            total = _Sums.empty(target.view.matrix)
            groups, _, fan_in = target.view.matrix
            total.gram, total.judge_gram = Gram(groups, fan_in), Gram(groups, fan_in)
            for layer, part in zip(target.layers, sums, strict=True):
                if layer.view == target.view:
                    total.merge(part)
        tail = self._tails[target.layers[0].name]
        shape = target.matrix.shape[:2]
        shared = len(target.layers) > 1
        return Evidence(
            weight=weight,
            sensitivity=self._sensitivities[index],
            fit=Regression.of(total.gram, total.cross, centred=_can_shift(tail) and not shared),
            check=Regression.of(total.judge_gram, total.judge_cross, centred=False)
            if total.judge_gram.count
            else None,
            gain=np.ones(shape) if tail is None else tail.gain.reshape(shape),
            samples=len(self._samples.calibration),
        )

    def _write(self, pruned: Model, weight: Weight, choice: Choice) -> None:
        old = self._dense.read(weight.name)
        pruned.replace(weight.name, stored_values(weight, old, choice.weight, choice.kept))
        tail = self._tails[weight.layers[0].name]
        if tail is None or tail.bias is None or len(weight.layers) > 1:
            return
        bias = self._dense.read(tail.bias.name)
        shifted = bias.astype(np.float64) + (tail.bias.factor * choice.bias.ravel()).reshape(
            bias.shape
        )
        pruned.replace(tail.bias.name, shifted.astype(bias.dtype))


@dataclass
class _Sums:
    """Sums of one layer, over calibration and over held-out samples."""

    gram: Gram
    cross: Cross
    judge_gram: Gram
    judge_cross: Cross

    @classmethod
    def empty(cls, shape: tuple[int, int, int]) -> _Sums:
        """Nothing seen yet; the Gram matrices, which may be shared, have no room yet either."""
        return cls(Gram(0, 0), Cross(*shape), Gram(0, 0), Cross(*shape))

    def gram_of(self, *, judge: bool) -> Gram:
        """The Gram matrix of one kind of sample."""
        return self.judge_gram if judge else self.gram

    def cross_of(self, *, judge: bool) -> Cross:
        """The products with the targets, of one kind of sample."""
        return self.judge_cross if judge else self.cross

    def merge(self, other: _Sums) -> None:
        """Add another layer's sums."""
        self.gram.merge(other.gram)
        self.cross.merge(other.cross)
        self.judge_gram.merge(other.judge_gram)
        self.judge_cross.merge(other.judge_cross)


def _stages(places: Sequence[_Place], flow: Flow) -> list[list[_Place]]:
    """Layers by the tensor they read, in the order in which that can be had.

    A skip path can be repaid only if it is complete when its layer's turn comes: no layer of this
    stage or a later one may lie on it.
    """
    by_input: dict[str, list[_Place]] = {}
    for place in sorted(places, key=lambda p: flow.place[p.layer.index]):
        by_input.setdefault(place.layer.activation, []).append(place)
    pending = {place.layer.index for place in places}
    stages = []
    for stage in by_input.values():
        stages.append([_without_pending_skip(place, pending, flow) for place in stage])
        pending -= {place.layer.index for place in stage}
    return stages


def _without_pending_skip(place: _Place, pending: set[int], flow: Flow) -> _Place:
    tail = place.tail
    if tail is None or tail.skip is None or not flow.upstream(tail.skip) & pending:
        return place
    return replace(place, tail=replace(tail, skip=None))


def _target(place: _Place, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Tensor:
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


def _product(place: _Place, output: Float32) -> Float32:
    """W a from the effective output, ``[group, out, patches]``."""
    tail = place.tail
    assert tail is not None
    shape = (*output.shape[:2], 1)
    gain = tail.gain.reshape(shape)
    inverse = np.divide(1.0, gain, out=np.zeros_like(gain), where=gain != 0)
    shift = tail.offset.reshape(shape)
    result: Float32 = (output - shift.astype(np.float32)) * inverse.astype(np.float32)
    return result


def _comparable(old: Any, new: Any) -> bool:
    return isinstance(old, np.ndarray) and old.dtype.kind in "fV" and old.shape == new.shape


def _can_shift(tail: Tail | None) -> bool:
    return tail is not None and tail.bias is not None
