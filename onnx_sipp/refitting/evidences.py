"""From what was gathered of a weight to the evidence that it is refitted on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.tail import Tail
from onnx_sipp.measures import Measured
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.refitting.layer_sums import Sums
from onnx_sipp.refitting.places import Place
from onnx_sipp.refitting.pruned import PrunedWeights, bias_place
from onnx_sipp.statistics.regression import Regression
from onnx_sipp.weights import Weight

__all__ = ["EvidenceMaker", "gain_of", "starting"]

Float = NDArray[np.floating]


@dataclass(frozen=True)
class EvidenceMaker:
    """Makes evidence of sums.

    Attributes:
        dense: the model that is pruned.
        tails: what follows each layer, by its name.
        measured: statistics of all weights.
        samples: number of calibration samples.
        hasty: see `Evidence`.
    """

    dense: Lowered
    tails: Mapping[str, Tail | None]
    measured: Sequence[Measured]
    samples: int
    hasty: bool = False

    def of(
        self, place: Place, sums: Sequence[Sums], before: PrunedWeights | None = None
    ) -> Evidence:
        """Evidence of a weight, or of some of its neurons.

        One whose sums are too large for float32 counts as if no sample had reached it.

        Args:
            place: of which neurons.
            sums: of all layers that multiply the weight; the first ones are used up.
            before: the pass that this one starts from, None for the dense model.
        """
        weight = place.weight
        total = _total(weight, sums)
        tail = self.tails[weight.layers[0].name]
        start, sensitivity = starting(place, before), self.measured[place.index].maximum.block
        if total.gram.count == 0 or total.too_large:
            unseen = Evidence.unseen(start, _read(place, sensitivity), weight.cells)
            return replace(unseen, too_large=total.too_large)
        shifts = tail is not None and tail.bias is not None and len(weight.layers) == 1
        return Evidence(
            weight=start,
            sensitivity=_read(place, sensitivity),
            fit=Regression.of(total.gram, total.cross, centred=shifts),
            check=Regression.of(total.judge_gram, total.judge_cross, centred=False)
            if total.judge_gram.count
            else None,
            gain=gain_of(weight, tail)[:, place.rows],
            samples=self.samples,
            whole=weight.shape if len(weight.blocks) > 1 else (),
            bias_is_new=self._has_new_bias(weight),
            cells=weight.cells,
            hasty=self.hasty,
        )

    def _has_new_bias(self, weight: Weight) -> bool:
        """Whether the bias of a weight is one that the original does not have."""
        place = bias_place(weight, self.tails)
        return place is not None and self.dense.is_spare(place.name)


def starting(place: Place, before: PrunedWeights | None) -> Float:
    """The weights that a pass starts from, in the shape of the weight's matrix."""
    if before is not None:
        return _read(place, partial(before.weight, place.index))
    return _read(place, lambda number: place.weight.blocks[number].matrix)


def gain_of(weight: Weight, tail: Tail | None) -> NDArray[np.float64]:
    """Factor from every sum of products to what the next nodes see, ``[group, out]``."""
    shape = weight.shape[:2]
    return np.ones(shape) if tail is None else tail.gain.reshape(shape)


def _total(weight: Weight, sums: Sequence[Sums]) -> Sums:
    """The sums of all layers together."""
    if len(sums) == 1:
        return sums[0]
    total = Sums.empty(weight.shape, sums[0].cross.multiplier)
    total.make_room()
    for part in sums:
        total.merge(part)
    return total


def _read(place: Place, read: Callable[[int], Float]) -> Float:
    return place.weight.of_jury(read) if place.block is None else read(place.block)
