"""The weights of a model as the pruning sees them: one matrix each, worked on in blocks.

A stored constant may be the weight of several layers. It then gets one mask, from the statistics
of all of them. A large one is never in memory as a whole: its neurons come block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.layers import Layer
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.views import MatrixView, contiguous
from onnx_sipp.memory import Plan
from onnx_sipp.pruning.cells import Cells, alive_units, units
from onnx_sipp.pruning.evidence import spread_rows
from onnx_sipp.pruning.patterns import Blocks, NofM

__all__ = ["Block", "Weight"]

Float32 = NDArray[np.float32]
Value = TypeVar("Value", bound=np.generic)

# Neurons of a weight in several blocks that are looked at before it is decided on.
JURY_SIZE = 128


@dataclass(frozen=True)
class _Facts:
    """Of a weight; see `Weight`."""

    alive: int
    capacity: int
    finite: bool


@dataclass(frozen=True)
class Weight:
    """A stored constant and the layers that multiply it.

    Attributes:
        name: of the constant that the first layer multiplies.
        model: that holds it, before pruning.
        layers: in graph order.
        places: by layer name, where each element of that layer's matrix stands in the flattened
            ``matrix``; layers that see the same matrix are left out.
        block_size: weights that are worked on at a time.
        pattern: that zeros have to lie in, None for any place.
    """

    name: str
    model: Lowered = field(repr=False)
    layers: tuple[Layer, ...] = field(repr=False)
    places: Mapping[str, NDArray[np.int64]] = field(default_factory=dict, repr=False)
    block_size: int = Plan.block
    pattern: NofM | Blocks | None = None

    @property
    def view(self) -> MatrixView:
        """How the first layer sees the constant."""
        return self.layers[0].view

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the matrix, ``(group, out, fan_in)``."""
        return self.view.matrix

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.view.size

    @property
    def matrix(self) -> Float32:
        """Float32 ``[group, out, fan_in]`` before pruning, as its first layer sees it."""
        return _matrix(self.model, self.name, self.view, 0, partial(self.model.read, self.name))

    @property
    def cells(self) -> Cells | None:
        """The pattern as it lies on the matrix."""
        return None if self.pattern is None else Cells.of(self.pattern, self.view.positions)

    @property
    def units(self) -> int:
        """How many parts stay or go by themselves: weights, or cells of the pattern."""
        return units(self.cells, self.size)

    @property
    def alive(self) -> int:
        """Those of them that are not zero."""
        return self._facts.alive

    @property
    def capacity(self) -> int:
        """Number of weights that are not zero."""
        return self._facts.capacity

    @property
    def is_finite(self) -> bool:
        """Whether no weight is infinite or NaN, in float32."""
        return self._facts.finite

    @cached_property
    def _facts(self) -> _Facts:
        """What is to be known of all weights: they are read once for it."""
        cells, alive, capacity, finite = self.cells, 0, 0, True
        for block in self.blocks:
            matrix = block.matrix
            nonzero = int(np.count_nonzero(matrix))
            capacity += nonzero
            alive += nonzero if cells is None else alive_units(cells, matrix)
            finite = finite and bool(np.isfinite(matrix).all())
        return _Facts(alive, capacity, finite)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Its neurons in a few blocks; one if the weight is small, shared or in groups.

        Made anew: they know the weight, and objects that know each other stay in memory for long.
        """
        axis = self.view.neuron_axis
        if self.size <= self.block_size or axis is None or len(self.layers) > 1:
            return (Block(self, slice(0, self.shape[1]), self.view, None),)
        _, outs, fan_in = self.shape
        band = 1 if self.cells is None else self.cells.rows
        step = max(1, self.block_size // (fan_in * band)) * band
        rows = [slice(start, min(outs, start + step)) for start in range(0, outs, step)]
        return tuple(Block(self, part, self.view.of_neurons(part), axis) for part in rows)

    @cached_property
    def jury(self) -> NDArray[np.intp]:
        """Some neurons of every block, evenly spread, that stand for all."""
        return spread_rows(self.shape[1], JURY_SIZE, 1 if self.cells is None else self.cells.rows)

    def of_jury(self, read: Callable[[int], NDArray[Value]]) -> NDArray[Value]:
        """Pick what belongs to the jury; all if the weight is in one block.

        Args:
            read: gives ``[group, out, fan_in]`` of a block, by its number.
        """
        if len(self.blocks) == 1:
            return read(0)
        parts = []
        for number, block in enumerate(self.blocks):
            inside = (self.jury >= block.rows.start) & (self.jury < block.rows.stop)
            parts.append(read(number)[:, self.jury[inside] - block.rows.start])
        return np.concatenate(parts, axis=1)

    def seen_alike(self, layer: Layer) -> bool:
        """Whether a layer's matrix is `matrix`, not the same elements in another arrangement."""
        return layer.name not in self.places

    def as_seen_by(self, layer: Layer, values: NDArray[Value]) -> NDArray[Value]:
        """Turn values in the shape of `matrix` into that of another layer's matrix."""
        if self.seen_alike(layer):
            return values
        return values.ravel()[self.places[layer.name]]

    def from_layer(self, layer: Layer, values: NDArray[Value]) -> NDArray[Value]:
        """Undo `as_seen_by`."""
        if self.seen_alike(layer):
            return values
        result = np.empty(self.size, values.dtype)
        result[self.places[layer.name].ravel()] = values.ravel()
        return result.reshape(self.shape)


@dataclass(frozen=True)
class Block:
    """Some neurons of a weight, or all.

    Attributes:
        weight: that they belong to.
        rows: which neurons of each group.
        view: how their matrix is seen in their part of the constant.
        axis: of the constant that the neurons lie along, None if these are all.
    """

    weight: Weight
    rows: slice
    view: MatrixView
    axis: int | None

    @property
    def matrix(self) -> Float32:
        """Float32 ``[group, out, fan_in]`` before pruning."""
        return self.matrix_in(self.weight.model)

    def matrix_in(self, model: Lowered) -> Float32:
        """The same in another model with the same constants; it may be looked at only."""
        read = partial(self.stored_in, model)
        return _matrix(model, self.weight.name, self.view, self.rows.start, read)

    def stored_in(self, model: Lowered) -> NDArray[Any]:
        """This part of the constant as a model stores it."""
        if self.axis is None:
            return model.read(self.weight.name)
        return model.read_slab(self.weight.name, self.axis, self.rows)


def _matrix(
    model: Lowered, name: str, view: MatrixView, first: int, read: Callable[[], NDArray[Any]]
) -> Float32:
    """The matrix of neurons of a constant from the first on, which the model keeps if it can."""

    def make() -> Float32:
        with np.errstate(over="ignore"):
            return contiguous(view.to_matrix(read()), np.float32)

    return model.derived(name, (view, first), make)
