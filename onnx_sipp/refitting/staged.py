"""The layers of a model in the stages in which passes go over them, and what follows each layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.tail import UNLIMITED, BiasPlace, Tail, find_tail
from onnx_sipp.graph.walk import has_control_flow
from onnx_sipp.outcome import Settled
from onnx_sipp.refitting.idle import Idle, find_idle, read_elsewhere
from onnx_sipp.refitting.places import Place, stages_of
from onnx_sipp.refitting.pruned import PrunedWeights, bias_place
from onnx_sipp.store import TensorStore
from onnx_sipp.weights import Weight

__all__ = ["Staged"]


@dataclass(frozen=True)
class Staged:
    """A dense model and the order of its layers.

    Attributes:
        dense: the lowered model; is not changed.
        weights: all that can be pruned.
        flow: of the model's main graph.
        stages: layers that share an input, in graph order.
        tails: what follows each layer, by its name.
        mask: name of an input that tells padding from data, None if there is none.
        decides: whether values decide which nodes run.
        tied: names of layers whose weights have to stay as they are chosen; see `read_elsewhere`.
    """

    dense: Lowered
    weights: Sequence[Weight]
    flow: Flow
    stages: Sequence[Sequence[Place]]
    tails: Mapping[str, Tail | None]
    mask: str | None
    decides: bool
    tied: Collection[str]

    @classmethod
    def of(cls, dense: Lowered, weights: Sequence[Weight], mask: str | None = None) -> Staged:
        """Put the layers of a model in order.

        Args:
            dense: the lowered model.
            weights: all that can be pruned.
            mask: name of an input that tells padding from data, None if there is none.
        """
        flow = Flow(dense)
        tails = {layer.name: find_tail(dense, flow, layer) for w in weights for layer in w.layers}
        places = [
            Place(index, weight, layer, tails[layer.name])
            for index, weight in enumerate(weights)
            for layer in weight.layers
        ]
        tied = read_elsewhere(dense, flow, weights)
        decides = has_control_flow(dense.proto)
        return cls(dense, weights, flow, stages_of(places, flow), tails, mask, decides, tied)

    @property
    def has_cuts(self) -> bool:
        """Whether a layer's output is cut off by the next node."""
        return any(tail is not None and tail.span != UNLIMITED for tail in self.tails.values())

    @property
    def bias_places(self) -> list[BiasPlace | None]:
        """Per weight, the constant that takes up a change of its bias."""
        return [bias_place(weight, self.tails) for weight in self.weights]

    @cached_property
    def juries(self) -> dict[int, Place]:
        """By the index of the weight, the part of it that is looked at first."""
        return {place.index: place.jury for stage in self.stages for place in stage}

    def biases(self, settled: Sequence[Settled] = ()) -> dict[str, str]:
        """By layer name, the stored constant that takes up a change of the bias.

        Args:
            settled: per weight; biases that the original does not have are named only if these make
                use of them.
        """
        shifts = [bool(found.shift.any()) for found in settled] or [False] * len(self.weights)
        return {
            weight.layers[0].name: place.name
            for weight, place, shifted in zip(self.weights, self.bias_places, shifts, strict=True)
            if place is not None and (shifted or not self.dense.is_spare(place.name))
        }

    def idle(self, model: Lowered | None = None) -> list[Idle]:
        """Per weight, what does nothing in a model with the same nodes, None for the dense one."""
        return find_idle(model or self.dense, self.flow, self.weights, self.biases(), self.tied)

    def pruned(self, store: TensorStore, *, remember: bool = False) -> PrunedWeights:
        """A copy to write new weights to; see `PrunedWeights`."""
        return PrunedWeights(self.dense, self.weights, self.tails, store, remember=remember)

    def wanted(self, *, dense: bool, pruned: bool) -> list[set[str]]:
        """Tensors that each stage needs of the dense model, of the pruned one, or of both."""
        sides = [side for side, asked in ((True, dense), (False, pruned)) if asked]
        return [
            set().union(*(self._asked(stage, dense=side) for side in sides))
            for stage in self.stages
        ]

    def _asked(self, stage: Sequence[Place], *, dense: bool) -> set[str]:
        names = {self.mask} if self.mask is not None and dense else set()
        for place in stage:
            if place.tail is None or self.decides or not dense:
                names.add(place.layer.activation)
            if place.tail is not None and dense:
                names.add(place.tail.output)
            if place.tail is not None and place.tail.skip is not None:
                names.add(place.tail.skip)
        return names
