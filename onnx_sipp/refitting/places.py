"""Where a pass stops: layers, or some of their neurons, in the order in which their turn comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.layers import Layer
from onnx_sipp.graph.tail import Tail
from onnx_sipp.memory import refit_bytes
from onnx_sipp.unfolding.base import Float32
from onnx_sipp.weights import Weight

__all__ = ["Place", "product_of", "stages_of"]


@dataclass(frozen=True)
class Place:
    """One layer of one weight, or some of its neurons, with what follows it.

    Attributes:
        index: of the weight.
        weight: itself.
        layer: that multiplies it.
        tail: of the layer.
        block: which block of the weight it is about; None for the jury.
    """

    index: int
    weight: Weight
    layer: Layer
    tail: Tail | None
    block: int | None = 0

    @property
    def parts(self) -> list[Place]:
        """The jury and all blocks, or the weight as a whole."""
        numbers = range(len(self.weight.blocks))
        blocks = [replace(self, block=number) for number in numbers]
        return blocks if len(blocks) == 1 else [self.jury, *blocks]

    @property
    def jury(self) -> Place:
        """The jury, or the weight as a whole if it is in one block."""
        return self if len(self.weight.blocks) == 1 else replace(self, block=None)

    @property
    def rows(self) -> slice | NDArray[np.intp]:
        """Neurons of each group of the layer that it is about."""
        if self.block is None:
            return self.weight.jury
        blocks = self.weight.blocks
        return blocks[self.block].rows if len(blocks) > 1 else slice(None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the matrix of these neurons."""
        groups, outs, fan_in = self.layer.view.matrix
        return groups, len(np.arange(outs)[self.rows]), fan_in

    @property
    def matrix(self) -> Float32:
        """The weights before pruning, as the layer sees them."""
        blocks = self.weight.blocks
        if self.block is None:
            return self.weight.of_jury(lambda number: blocks[number].matrix)
        return self.weight.as_seen_by(self.layer, blocks[self.block].matrix)

    @property
    def sums_bytes(self) -> int:
        """Bytes of the sums of products with the targets."""
        return 2 * 8 * prod(self.shape)

    @property
    def evidence_bytes(self) -> int:
        """About how many bytes are held while it is decided on."""
        groups, _, fan_in = self.shape
        return refit_bytes(prod(self.shape)) + 2 * 8 * groups * fan_in**2


def stages_of(places: Sequence[Place], flow: Flow) -> list[list[Place]]:
    """Layers by the tensor they read, in the order in which that can be had.

    A skip path can be repaid only if it is complete when its layer's turn comes: no layer of this
    stage or a later one may lie on it.
    """
    by_input: dict[str, list[Place]] = {}
    for place in sorted(places, key=lambda p: flow.place[p.layer.index]):
        by_input.setdefault(place.layer.activation, []).append(place)
    pending = {place.layer.index for place in places}
    stages = []
    for stage in by_input.values():
        stages.append([_without_pending_skip(place, pending, flow) for place in stage])
        pending -= {place.layer.index for place in stage}
    return stages


def _without_pending_skip(place: Place, pending: set[int], flow: Flow) -> Place:
    tail = place.tail
    if tail is None or tail.skip is None or not flow.upstream(tail.skip) & pending:
        return place
    return replace(place, tail=tail.without_skip())


def product_of(place: Place, output: Float32) -> Float32:
    """W a of the place's neurons from the effective output, ``[group, out, patches]``."""
    tail = place.tail
    assert tail is not None
    shape = (*output.shape[:2], 1)
    gain = tail.gain.reshape(shape)[:, place.rows]
    inverse = np.divide(1.0, gain, out=np.zeros_like(gain), where=gain != 0)
    shift = tail.offset.reshape(shape)[:, place.rows]
    own = output[:, place.rows]
    result: Float32 = (own - shift.astype(np.float32)) * inverse.astype(np.float32)
    return result
