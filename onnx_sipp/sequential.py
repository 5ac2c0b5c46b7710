"""Refit layers in graph order: each on what the already pruned layers before it hand on.

The dense and the pruned model are run side by side, stage by stage. A stage is the layers that
share an input. Their targets are the dense model's outputs; where a layer's output is added to a
skip path, the target also repays the error that the skip path already carries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.runner import Batching, Runner, joined, plan_batching
from onnx_sipp.calibration.samples import Samples
from onnx_sipp.calibration.segments import SegmentedRun, Tensor
from onnx_sipp.calibration.specs import Feed, InputSpec
from onnx_sipp.calibration.store import TensorStore
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.sharing import other_readers
from onnx_sipp.graph.tail import Tail, find_tail
from onnx_sipp.graph.walk import all_nodes
from onnx_sipp.idle import Idle, find_idle
from onnx_sipp.layer_sums import Gatherer, Place, Sums, stages_of
from onnx_sipp.progress import Progress
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.mixing import Choice
from onnx_sipp.statistics.gram import Gram, Regression
from onnx_sipp.weights import Weight, stored_values

__all__ = ["Refitter"]

Decide = Callable[[int, Evidence], Choice]


class Refitter:
    """Passes over the layers of a model in graph order.

    Args:
        dense: the lowered model; is not changed, and kept as an attribute.
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
        dense: Lowered,
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
        self.dense, self._weights, self._sensitivities = dense, weights, sensitivities
        self._flow = Flow(dense)
        self._decides = any(n.op_type in ("If", "Loop") for n in all_nodes(dense.proto))
        self._threads, self._providers = threads, providers
        self._samples = samples
        self._store, self._mask = store, mask
        self._outputs: list[tuple[Feed, dict[str, Tensor]]] | None = None
        places = [
            Place(index, weight, layer, find_tail(dense, self._flow, layer))
            for index, weight in enumerate(weights)
            for layer in weight.layers
        ]
        self._sharing = {
            layer.name for weight in weights if len(weight.layers) > 1 for layer in weight.layers
        }
        self._tails = {place.layer.name: place.tail for place in places}
        layers = [place.layer for place in places]
        self._tied = {layer.name for layer, _ in other_readers(dense, layers)}
        self._stages = stages_of(places, self._flow)
        self._batching, self._inputs = self._plan(batch_size)
        judges = [held_out for held_out, _ in self._batches()]
        self._gatherer = Gatherer(judges, mask, threads)

    def _batches(self, *, held_out_first: bool = False) -> Iterator[tuple[bool, Feed]]:
        """All feeds, joined as planned, each with whether it is held out."""
        parts = [(self._samples.calibration, False), (self._samples.held_out, True)]
        if held_out_first:
            parts.reverse()
        for part, held_out in parts:
            for _, feed in joined(part, self._batching, self._inputs):
                yield held_out, feed

    def _plan(self, batch_size: int | None) -> tuple[Batching, tuple[InputSpec, ...]]:
        asked = [self._asked(s, dense=side) for s in self._stages for side in (True, False)]
        taps = sorted(set().union(*asked) | {o.name for o in self.dense.proto.graph.output})
        runner = Runner(self.dense, taps, threads=self._threads, providers=self._providers)
        first = [feed for feed, _ in zip(self._samples.calibration, range(2), strict=False)]
        return plan_batching(runner, first, batch_size), runner.inputs

    def biases(self, choices: Sequence[Choice] = ()) -> dict[str, str]:
        """By layer name, the stored constant that takes up a change of the bias.

        Args:
            choices: per weight; biases that the original does not have are named only if these make
                use of them.
        """
        shifts = {
            weight.layers[0].name: bool(choice.bias.any())
            for weight, choice in zip(self._weights, choices, strict=bool(choices))
        }
        return {
            name: tail.bias.name
            for name, tail in self._tails.items()
            if tail is not None and tail.bias is not None and name not in self._sharing
            if not self._is_new(tail) or shifts.get(name, False)
        }

    def _is_new(self, tail: Tail | None) -> bool:
        """Whether the bias behind a layer is one that the original does not have."""
        return tail is not None and tail.bias is not None and self.dense.is_spare(tail.bias.name)

    def idle(self, model: Lowered) -> list[Idle]:
        """Per weight, what does nothing in a model of the same graph.

        Args:
            model: the dense model, or a changed one.
        """
        return find_idle(model, self._flow, self._weights, self.biases(), self._tied)

    def evidence(self, progress: Progress) -> list[Evidence]:
        """Evidence for every weight from the dense model alone, summed over its layers."""
        asked = [self._asked(s, dense=True) | self._asked(s, dense=False) for s in self._stages]
        run = self._run(self.dense, asked)
        sums: dict[int, list[Sums]] = {}
        for stage in self._stages:
            tensors = run.advance()
            for place, found in self._gatherer.observe(stage, tensors, tensors):
                if place.weight.seen_alike(place.layer):  # the others have other inputs
                    sums.setdefault(place.index, []).append(found)
            progress.advance(1, len(self._stages))
        run.close()
        return [
            self._evidence(index, weight.matrix, sums[index])
            for index, weight in enumerate(self._weights)
        ]

    def unmeasured(self) -> list[Evidence]:
        """Evidence that holds the weights only, where a pass in graph order measures the rest.

        Raises:
            ValueError: several layers share a weight; it is decided on what was measured before.
        """
        if self._sharing:
            raise ValueError("a shared weight needs evidence")
        nothing = [Sums.empty((0, 0, 0)) for _ in self._weights]
        return [
            self._evidence(index, weight.matrix, [nothing[index]])
            for index, weight in enumerate(self._weights)
        ]

    @property
    def count(self) -> int:
        """Number of weights."""
        return len(self._weights)

    @property
    def shares(self) -> bool:
        """Whether several layers share a weight."""
        return bool(self._sharing)

    def impact(self, index: int, choice: Choice) -> float:
        """Relative squared error of the model's outputs when one weight alone is changed.

        Args:
            index: of the weight.
            choice: what becomes of it.
        """
        changed = self.dense.copy()
        self._write(changed, self._weights[index], choice)
        return self.output_error(changed)

    def output_error(self, model: Lowered, batches: int = 16) -> float:
        """Relative squared error of a changed model's floating-point outputs, their mean.

        Args:
            model: with the same outputs as the dense one.
            batches: how many to look at, the held-out ones first.
        """
        runner = Runner(model, threads=self._threads, providers=self._providers)
        if self._outputs is None:
            feeds = list(islice(self._batches(held_out_first=True), batches))
            plain = Runner(self.dense, threads=self._threads, providers=self._providers)
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
    ) -> tuple[Lowered, list[Choice]]:
        """Decide on every weight by given evidence, none knowing of the others.

        Args:
            evidence: per weight.
            decide: called with the index of a weight and its evidence.
            progress: told after every weight.
        """
        pruned = self.dense.copy()
        choices = []
        for index, found in enumerate(evidence):
            choices.append(decide(index, found))
            self._write(pruned, self._weights[index], choices[-1])
            progress.advance(1, len(evidence))
        return pruned, choices

    def refit(
        self, before: Sequence[Evidence], decide: Decide, progress: Progress
    ) -> tuple[Lowered, list[Choice], list[Evidence]]:
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
        pruned = self.dense.copy()
        dense_run = self._run(self.dense, [self._asked(s, dense=True) for s in self._stages])
        pruned_run = self._run(pruned, [self._asked(s, dense=False) for s in self._stages])
        choices: dict[int, Choice] = {}
        after = list(before)
        for stage in self._stages:
            tensors = dense_run.advance(), pruned_run.advance()
            own = [place for place in stage if len(place.weight.layers) == 1]
            for place, sums in self._gatherer.observe(own, *tensors):
                start = before[place.index].weight
                found = self._evidence(place.index, start, [sums])
                old = before[place.index]
                after[place.index] = replace(found, by_neuron=old.by_neuron, gain=old.gain)
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

    def _run(self, model: Lowered, wanted: Sequence[set[str]]) -> SegmentedRun:
        return SegmentedRun(
            model, self._flow, wanted, (feed for _, feed in self._batches()), self._store,
            threads=self._threads, providers=self._providers,
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

    def _evidence(self, index: int, weight: NDArray[np.floating], sums: Sequence[Sums]) -> Evidence:
        target = self._weights[index]
        total = sums[0]
        if len(sums) > 1:
            total = Sums.empty(target.view.matrix)
            groups, _, fan_in = target.view.matrix
            total.gram, total.judge_gram = Gram(groups, fan_in), Gram(groups, fan_in)
            for part in sums:
                total.merge(part)
        tail = self._tails[target.layers[0].name]
        shape = target.matrix.shape[:2]
        shared = len(target.layers) > 1
        if total.gram.count == 0:
            return Evidence.unseen(weight, self._sensitivities[index])
        return Evidence(
            weight=weight,
            sensitivity=self._sensitivities[index],
            fit=Regression.of(total.gram, total.cross, centred=_can_shift(tail) and not shared),
            check=Regression.of(total.judge_gram, total.judge_cross, centred=False)
            if total.judge_gram.count
            else None,
            gain=np.ones(shape) if tail is None else tail.gain.reshape(shape),
            samples=len(self._samples.calibration),
            bias_is_new=self._is_new(tail) and not shared,
        )

    def _write(self, pruned: Lowered, weight: Weight, choice: Choice) -> None:
        old = self.dense.read(weight.name)
        pruned.replace(weight.name, stored_values(weight, old, choice.weight, choice.kept))
        tail = self._tails[weight.layers[0].name]
        if tail is None or tail.bias is None or len(weight.layers) > 1:
            return
        bias = self.dense.read(tail.bias.name)
        shifted = bias.astype(np.float64) + (tail.bias.factor * choice.bias.ravel()).reshape(
            bias.shape
        )
        pruned.replace(tail.bias.name, shifted.astype(bias.dtype))


def _comparable(old: Any, new: Any) -> bool:
    return isinstance(old, np.ndarray) and old.dtype.kind in "fV" and old.shape == new.shape


def _can_shift(tail: Tail | None) -> bool:
    return tail is not None and tail.bias is not None
