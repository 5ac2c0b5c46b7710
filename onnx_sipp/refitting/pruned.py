"""The pruned model while it is made: new weights and biases are written block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.tail import BiasPlace, Tail
from onnx_sipp.outcome import Refit, Settled
from onnx_sipp.pruning.mixing import Choice
from onnx_sipp.rewriting import BlockWriter, stored_values
from onnx_sipp.store import Kept, TensorStore, load
from onnx_sipp.weights import Weight

__all__ = ["PrunedWeights", "bias_place"]

Float = NDArray[np.floating]


class PrunedWeights:
    """A copy of a model whose weights are replaced one after the other.

    Args:
        dense: the model; is not changed.
        weights: all prunable ones.
        tails: by layer name.
        store: keeps what is new.
        remember: whether `weight` will be asked for.
    """

    def __init__(
        self,
        dense: Lowered,
        weights: Sequence[Weight],
        tails: Mapping[str, Tail | None],
        store: TensorStore,
        *,
        remember: bool = False,
    ) -> None:
        self.model = dense.copy(store)
        self._writer = BlockWriter(self.model)
        self._dense, self._weights, self._tails, self._store = dense, weights, tails, store
        self._shifts = [np.zeros(weight.shape[:2]) for weight in weights]
        self._refits: list[list[Refit]] = [[] for _ in weights]
        self._powers: list[list[float]] = [[] for _ in weights]
        self._remember = remember
        self._new: dict[tuple[int, int], Kept] = {}

    def write(
        self, index: int, number: int, choice: Choice, power: float, *, too_large: bool = False
    ) -> None:
        """Write down what was decided on a block of a weight.

        Args:
            index: of the weight.
            number: of the block.
            choice: what becomes of it.
            power: of the output that its errors are relative to.
            too_large: see `Evidence`.
        """
        weight = self._weights[index]
        block = weight.blocks[number]
        old = block.stored_in(self._dense)
        self._writer.write(block, stored_values(block, old, choice.weight, choice.kept))
        if self._remember:
            self._new[index, number] = self._store.keep(choice.weight)
        found = choice.candidate, choice.damping, choice.error_before, choice.error
        self._refits[index].append(Refit(*found, too_large))
        self._powers[index].append(power)
        place = bias_place(weight, self._tails)
        if place is None:
            return
        self._shifts[index][:, block.rows] = choice.bias
        bias = self._dense.read(place.name)
        shift = (place.factor * self._shifts[index].ravel()).reshape(bias.shape)
        self.model.replace(place.name, (bias.astype(np.float64) + shift).astype(bias.dtype))

    def weight(self, index: int, number: int) -> Float:
        """New values of a block, as precise as they were decided on."""
        return load(self._new[index, number])

    def whole(self, index: int) -> Float:
        """New values of a weight."""
        blocks = [self.weight(index, n) for n in range(len(self._weights[index].blocks))]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def is_complete(self, index: int) -> bool:
        """Whether all blocks of a weight have been written."""
        return len(self._refits[index]) == len(self._weights[index].blocks)

    def settled(self) -> list[Settled]:
        """What became of every weight."""
        none = [np.zeros((2, *weight.shape[:2]), np.bool_) for weight in self._weights]
        return [
            Settled(shift, sampled, Refit.merged(refits, powers))
            for shift, sampled, refits, powers in zip(
                self._shifts, none, self._refits, self._powers, strict=True
            )
        ]


def bias_place(weight: Weight, tails: Mapping[str, Tail | None]) -> BiasPlace | None:
    """The constant that takes up a change of a weight's bias, None if there is none."""
    tail = tails[weight.layers[0].name]
    return None if tail is None or len(weight.layers) > 1 else tail.bias
