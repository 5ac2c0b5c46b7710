"""What calibration tells of every weight, and what a change of it does to its layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.observe import Observation, Watch, observe
from onnx_sipp.graph.layers import Layer
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.pruning.importance import IMPORTANCES, LayerStatistics
from onnx_sipp.pruning.methods import METHODS
from onnx_sipp.statistics.moments import Energies, OutputError, SecondMoment
from onnx_sipp.statistics.sensitivity import Reduction, SensitivityAccumulator
from onnx_sipp.store import Kept, TensorStore, load
from onnx_sipp.unfolding.base import Patches
from onnx_sipp.weights import Block, Weight

__all__ = [
    "Measured",
    "PatchCount",
    "Sensitivity",
    "measure_errors",
    "measure_statistics",
    "second_moment",
]

Float = NDArray[np.floating]
Float32 = NDArray[np.float32]

# Weights from which on a layer is parted among threads.
_SPLIT_SIZE = 1 << 18
# Bytes per weight that an accumulator takes.
_SENSITIVITY_BYTES = 24
_ERROR_BYTES = 12


class Sensitivity:
    """Sensitivities of one weight, the largest over the layers that share it.

    Args:
        weight: that they are of.
        reduction: ``"mean"`` or ``"max"``.
        store: keeps them.
    """

    def __init__(self, weight: Weight, reduction: Reduction, store: TensorStore) -> None:
        self._weight, self._reduction, self._store = weight, reduction, store
        self._blocks: dict[int, Kept] = {}

    @classmethod
    def of_blocks(
        cls, weight: Weight, reduction: Reduction, store: TensorStore, blocks: Iterable[Float32]
    ) -> Sensitivity:
        """Sensitivities that are known.

        Args:
            weight: that they are of.
            reduction: ``"mean"`` or ``"max"``.
            store: keeps them.
            blocks: those of every block of the weight, in the shape of its matrix.
        """
        made = cls(weight, reduction, store)
        made._blocks = {index: store.keep(values) for index, values in enumerate(blocks)}
        return made

    @classmethod
    def of_matrix(
        cls, weight: Weight, reduction: Reduction, store: TensorStore, values: Float32
    ) -> Sensitivity:
        """The same from those of the whole weight, ``[group, out, fan_in]``."""
        parts = (values[:, block.rows] for block in weight.blocks)
        return cls.of_blocks(weight, reduction, store, parts)

    def block(self, index: int) -> Float32:
        """Those of a block, in the shape of its matrix."""
        return load(self._blocks[index])

    def whole(self) -> Float32:
        """All of them, in the shape of the matrix."""
        blocks = [self.block(index) for index in range(len(self._blocks))]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def watches(self, threads: int) -> Iterator[Watch[SensitivityAccumulator]]:
        """What to observe for them; their neurons are parted so that threads work side by side."""
        for layer in self._weight.layers:
            for index, block in enumerate(self._weight.blocks):
                yield self._watch(layer, index, block, threads)

    def _watch(
        self, layer: Layer, index: int, block: Block, threads: int
    ) -> Watch[SensitivityAccumulator]:
        def begin() -> list[SensitivityAccumulator]:
            matrix = self._weight.as_seen_by(layer, block.matrix)
            count = min(max(2, threads), matrix.shape[1]) if matrix.size > _SPLIT_SIZE else 1
            parts = np.array_split(matrix, count, axis=1)
            return [SensitivityAccumulator(part, self._reduction) for part in parts]

        def end(parts: Sequence[SensitivityAccumulator]) -> None:
            values = np.concatenate([part.result() for part in parts], axis=1)
            seen = self._weight.from_layer(layer, values).astype(np.float32, copy=False)
            if index in self._blocks:
                seen = np.maximum(self.block(index), seen)
                self._store.drop(self._blocks[index])
            self._blocks[index] = self._store.keep(seen)

        return Watch(layer, _SENSITIVITY_BYTES * block.view.size, begin, end)


@dataclass
class Measured:
    """Statistics of one weight.

    Attributes:
        weight: that they are of.
        maximum: SiPP's ``max`` sensitivities.
        mean: the ``mean`` form, None unless asked for.
        second_moment: as in `LayerStatistics`; None unless asked for.
        counts: patches of each layer.
        inputs: by layer name, sums behind the second moments, if they were measured here.
    """

    weight: Weight
    maximum: Sensitivity
    mean: Sensitivity | None = None
    second_moment: NDArray[np.float64] | None = None
    counts: list[PatchCount] = field(default_factory=list)
    inputs: dict[str, SecondMoment] = field(default_factory=dict)

    @property
    def patches(self) -> int:
        """The most patches of a sample, summed over the layers."""
        return sum(count.most for count in self.counts)

    def block(self, number: int) -> LayerStatistics:
        """That of a block, in memory."""
        if len(self.weight.blocks) == 1:
            return self.whole()
        return LayerStatistics(
            weight=self.weight.blocks[number].matrix,
            sensitivity_max=self.maximum.block(number),
            sensitivity_mean=None if self.mean is None else self.mean.block(number),
            second_moment=self.second_moment,  # of the inputs: the weight has one layer
            patches=self.patches,
            cells=self.weight.cells,
        )

    def whole(self) -> LayerStatistics:
        """All of it, in memory."""
        return LayerStatistics(
            weight=self.weight.matrix,
            sensitivity_max=self.maximum.whole(),
            sensitivity_mean=None if self.mean is None else self.mean.whole(),
            second_moment=self.second_moment,
            patches=self.patches,
            cells=self.weight.cells,
        )


def measure_statistics(
    weights: Sequence[Weight], method: str, observation: Observation, store: TensorStore
) -> list[Measured]:
    """Observe what a method and the certificate need to know of every weight."""
    needs = IMPORTANCES[METHODS[method].importance]
    found: list[Measured] = []
    watches: list[Watch[Any]] = []
    for weight in weights:
        measured = Measured(weight, Sensitivity(weight, "max", store))
        watches += measured.maximum.watches(observation.threads)
        if needs.mean:
            measured.mean = Sensitivity(weight, "mean", store)
            watches += measured.mean.watches(observation.threads)
        for layer in weight.layers:
            measured.counts.append(PatchCount())
            watches.append(measured.counts[-1].watch(layer))
            if needs.moments:
                watches.append(_moments(measured, layer))
        found.append(measured)
    observe(observation, watches)
    return found


class PatchCount:
    """The most patches that a sample had.

    Args:
        most: so far.
    """

    def __init__(self, most: int = 0) -> None:
        self.most, self._current = most, 0

    def update(self, patches: Patches) -> None:
        """Take in the patches of some samples."""
        self._current += patches.per_sample
        self.most = max(self.most, self._current)
        if patches.complete:
            self._current = 0

    def watch(self, layer: Layer) -> Watch[PatchCount]:
        """Count the patches of a layer."""
        return Watch(layer, 0, lambda: [self], lambda _: None)


def _moments(measured: Measured, layer: Layer) -> Watch[SecondMoment]:
    """Sum second moments of what each weight multiplies."""
    groups, _, fan_in = layer.view.matrix

    def end(moments: Sequence[SecondMoment]) -> None:
        measured.inputs[layer.name] = moments[0]
        measured.second_moment = second_moment(measured.weight, measured.inputs)

    return Watch(layer, 8 * groups * fan_in, lambda: [SecondMoment(groups, fan_in)], end)


def second_moment(weight: Weight, inputs: Mapping[str, SecondMoment]) -> NDArray[np.float64] | None:
    """Second moments of what each weight multiplies, broadcastable to the matrix.

    Args:
        weight: whose layers they are summed over.
        inputs: by layer name; layers that are not there are left out.
    """
    total: NDArray[np.float64] | None = None
    for layer in weight.layers:
        if layer.name not in inputs:
            continue
        moment = inputs[layer.name].result()[:, None, :]
        if weight.places:
            full = np.broadcast_to(moment, layer.view.matrix)
            moment = weight.from_layer(layer, full).astype(np.float64)
        total = moment if total is None else total + moment
    return total


def measure_errors(
    weights: Sequence[Weight],
    changed: Lowered,
    shifts: Sequence[Float],
    observation: Observation,
    dead: Sequence[NDArray[np.bool_]] = (),
) -> dict[str, float]:
    """Relative output error of every layer with changed weights, from the dense model's inputs.

    Args:
        weights: before.
        changed: the model after.
        shifts: what the biases gained, ``[group, out]`` per weight.
        observation: on the samples to measure on.
        dead: ``[group, out]`` per weight, neurons that do not count; all do if it is empty.

    Returns:
        By layer name.
    """
    read = [~unread for unread in dead] or [np.ones(w.shape[:2], np.bool_) for w in weights]
    totals: dict[str, Energies] = {}
    watches = [
        _error(block, layer, changed, shift[:, block.rows], counts[:, block.rows], totals)
        for weight, shift, counts in zip(weights, shifts, read, strict=True)
        for layer in weight.layers
        for block in weight.blocks
    ]
    observe(observation, watches)
    return {name: total.ratio for name, total in totals.items()}


def _error(
    block: Block,
    layer: Layer,
    changed: Lowered,
    shift: Float,
    counts: NDArray[np.bool_],
    totals: dict[str, Energies],
) -> Watch[OutputError]:
    """Measure the error of the neurons of a block that count."""
    weight = block.weight

    def begin() -> list[OutputError]:
        return [
            OutputError(
                weight.as_seen_by(layer, block.matrix * counts[..., None]),
                weight.as_seen_by(layer, block.matrix_in(changed) * counts[..., None]),
                shift * counts if weight.seen_alike(layer) else None,
            )
        ]

    def end(errors: Sequence[OutputError]) -> None:
        totals.setdefault(layer.name, Energies()).merge(errors[0].energies)

    return Watch(layer, _ERROR_BYTES * block.view.size, begin, end)
