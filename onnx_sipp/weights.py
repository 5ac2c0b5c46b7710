"""The weights of a model as the pruning sees them: one matrix each, with its statistics.

A stored constant may be the weight of several layers. It then gets one mask, from the statistics
of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.observe import Accumulator, Observation, observe
from onnx_sipp.errors import SippError
from onnx_sipp.graph.layers import Layer
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.sharing import positions
from onnx_sipp.graph.views import MatrixView
from onnx_sipp.pruning.importance import IMPORTANCES, LayerStatistics
from onnx_sipp.pruning.methods import METHODS
from onnx_sipp.statistics.moments import OutputError, SecondMoment
from onnx_sipp.statistics.sensitivity import Reduction, SensitivityAccumulator
from onnx_sipp.unfolding import Patches

__all__ = [
    "PatchCount",
    "Weight",
    "group_weights",
    "matrix_of",
    "measure_errors",
    "measure_statistics",
    "new_sensitivity",
    "sensitivity_of",
    "stored_values",
]

Float = NDArray[np.floating]
Value = TypeVar("Value", bound=np.generic)

# Weights from which on a layer is parted among threads.
_SPLIT_SIZE = 1 << 18


@dataclass(frozen=True)
class Weight:
    """A stored constant and the layers that multiply it.

    Attributes:
        name: of the constant that the first layer multiplies.
        matrix: float32 ``[group, out, fan_in]``, as its first layer sees it.
        layers: in graph order.
        places: by layer name, where each element of that layer's matrix stands in the flattened
            ``matrix``; layers that see the same matrix are left out.
    """

    name: str
    matrix: NDArray[np.float32]
    layers: tuple[Layer, ...] = field(repr=False)
    places: Mapping[str, NDArray[np.int64]] = field(default_factory=dict, repr=False)

    @property
    def view(self) -> MatrixView:
        """How the first layer sees the constant."""
        return self.layers[0].view

    def seen_alike(self, layer: Layer) -> bool:
        """Whether a layer's matrix is `matrix`, not the same elements in another arrangement."""
        return layer.name not in self.places

    def as_seen_by(self, layer: Layer, values: NDArray[Value]) -> NDArray[Value]:
        """Turn values in the shape of `matrix` into that of another layer's matrix."""
        if self.seen_alike(layer):
            return values
        return values.ravel()[self.places[layer.name]]

    def from_layer(self, layer: Layer, values: Float) -> Float:
        """Undo `as_seen_by`."""
        if self.seen_alike(layer):
            return values
        result = np.empty(self.matrix.size, values.dtype)
        result[self.places[layer.name].ravel()] = values.ravel()
        return result.reshape(self.matrix.shape)


def group_weights(model: Lowered, layers: Sequence[Layer]) -> list[Weight]:
    """Gather layers by the stored elements that they multiply, in graph order.

    Args:
        model: that the layers belong to.
        layers: two of them multiply the same elements, or have none in common.

    Raises:
        SippError: a weight is not finite, in float32.
    """
    groups: dict[int, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(model.first_element(layer.weight), []).append(layer)
    return [
        Weight(users[0].weight, matrix_of(model, users[0]), tuple(users), _places(model, users))
        for users in groups.values()
    ]


def _places(model: Lowered, users: Sequence[Layer]) -> dict[str, NDArray[np.int64]]:
    """See `Weight.places`."""
    if len({(layer.weight, layer.view) for layer in users}) == 1:
        return {}
    seen = [layer.view.to_matrix(model.elements(layer.weight)) for layer in users]
    return {
        layer.name: positions(ids, among=seen[0])
        for layer, ids in zip(users, seen, strict=True)
        if not np.array_equal(ids, seen[0])
    }


def matrix_of(model: Model, layer: Layer) -> NDArray[np.float32]:
    """The weight matrix of a layer as it is stored, ``[group, out, fan_in]``.

    Raises:
        SippError: it is not finite, in float32.
    """
    with np.errstate(over="ignore"):
        matrix = layer.view.to_matrix(model.read(layer.weight)).astype(np.float32, order="C")
    if not np.isfinite(matrix).all():
        raise SippError(
            f"the weight {layer.weight!r} of layer {layer.name!r} holds infinities or NaN; "
            "mend the model, or exclude the layer"
        )
    return matrix


def measure_statistics(
    weights: Sequence[Weight], method: str, observation: Observation
) -> list[LayerStatistics]:
    """Observe what a method and the certificate need to know of every weight."""
    needs = IMPORTANCES[METHODS[method].importance]
    users = [(weight, layer) for weight in weights for layer in weight.layers]
    parts = observation.threads
    largest = {layer.name: new_sensitivity(w, layer, "max", parts) for w, layer in users}
    means = {
        layer.name: new_sensitivity(w, layer, "mean", parts) for w, layer in users if needs.mean
    }
    moments = {layer.name: _moment(layer) for _, layer in users if needs.moments}
    counts = {layer.name: PatchCount() for _, layer in users}
    gathered: dict[str, list[Accumulator]] = {
        layer.name: [*largest[layer.name].parts, counts[layer.name]] for _, layer in users
    }
    for name, mean in means.items():
        gathered[name] += mean.parts
    for name, moment in moments.items():
        gathered[name].append(moment)
    observe(observation, [layer for _, layer in users], gathered)
    return [
        LayerStatistics(
            weight=w.matrix,
            sensitivity_max=sensitivity_of(w, largest),
            sensitivity_mean=sensitivity_of(w, means) if needs.mean else None,
            second_moment=_moment_of(w, moments) if needs.moments else None,
            patches=sum(counts[layer.name].most for layer in w.layers),
        )
        for w in weights
    ]


def _moment(layer: Layer) -> SecondMoment:
    groups, _, fan_in = layer.view.matrix
    return SecondMoment(groups, fan_in)


class SplitSensitivity:
    """Sensitivities of a layer, its neurons parted so that threads can work side by side.

    Args:
        matrix: ``[group, out, fan_in]``.
        reduction: ``"mean"`` or ``"max"``.
        parts: how many; small layers stay whole.
    """

    def __init__(self, matrix: NDArray[np.floating], reduction: Reduction, parts: int) -> None:
        count = parts if matrix.size > _SPLIT_SIZE and matrix.shape[1] >= parts else 1
        pieces = np.array_split(matrix, count, axis=1)
        self.parts = [SensitivityAccumulator(piece, reduction) for piece in pieces]

    def result(self) -> NDArray[np.float32]:
        """Sensitivities, ``[group, out, fan_in]``."""
        return np.concatenate([part.result() for part in self.parts], axis=1)


def new_sensitivity(
    weight: Weight, layer: Layer, reduction: Reduction, parts: int
) -> SplitSensitivity:
    """Accumulators for one of the layers of a weight."""
    return SplitSensitivity(weight.as_seen_by(layer, weight.matrix), reduction, parts)


def sensitivity_of(
    weight: Weight, accumulators: dict[str, SplitSensitivity]
) -> NDArray[np.float32]:
    """The largest sensitivity over all layers that share a weight, in the shape of its matrix."""
    seen = [weight.from_layer(layer, accumulators[layer.name].result()) for layer in weight.layers]
    result: NDArray[np.float32] = np.maximum.reduce(seen).astype(np.float32, copy=False)
    return result


def _moment_of(weight: Weight, accumulators: dict[str, SecondMoment]) -> NDArray[np.float64]:
    """Summed second moments of what each weight multiplies, broadcastable to the matrix."""
    total = np.zeros((1, 1, 1))
    for layer in weight.layers:
        moment = accumulators[layer.name].result()[:, None, :]
        if weight.places:
            full = np.broadcast_to(moment, layer.view.matrix)
            moment = weight.from_layer(layer, full).astype(np.float64)
        total = total + moment
    return total


class PatchCount:
    """The most patches that a sample had."""

    def __init__(self) -> None:
        self.most = self._current = 0

    def update(self, patches: Patches) -> None:
        """Take in the patches of some samples."""
        self._current += patches.per_sample
        self.most = max(self.most, self._current)
        if patches.complete:
            self._current = 0


def measure_errors(
    weights: Sequence[Weight],
    changed: Sequence[Float],
    shifts: Sequence[Float],
    observation: Observation,
    dead: Sequence[NDArray[np.bool_]] = (),
) -> dict[str, float]:
    """Relative output error of every layer with changed weights, from the dense model's inputs.

    Args:
        weights: before.
        changed: after, same order and shapes as the matrices.
        shifts: what the biases gained, ``[group, out]`` per weight.
        observation: on the samples to measure on.
        dead: ``[group, out]`` per weight, neurons that do not count; none do not if it is empty.

    Returns:
        By layer name.
    """
    nobody = [np.zeros(weight.matrix.shape[:2], np.bool_) for weight in weights]
    errors = {
        layer.name: OutputError(
            weight.as_seen_by(layer, np.where(unread[..., None], 0, weight.matrix)),
            weight.as_seen_by(layer, np.where(unread[..., None], 0, new)),
            np.where(unread, 0, shift) if weight.seen_alike(layer) else None,
        )
        for weight, new, shift, unread in zip(weights, changed, shifts, dead or nobody, strict=True)
        for layer in weight.layers
    }
    layers = [layer for weight in weights for layer in weight.layers]
    observe(observation, layers, {name: [error] for name, error in errors.items()})
    return {name: error.result() for name, error in errors.items()}


def stored_values(
    weight: Weight, old: NDArray[Any], new: Float, kept: NDArray[np.bool_]
) -> NDArray[Any]:
    """New elements of a stored constant, with a zero exactly where a weight was dropped.

    Args:
        weight: that they belong to.
        old: the elements before.
        new: ``[group, out, fan_in]``.
        kept: same shape.
    """
    # A reweighted weight may not fit a narrow type.
    largest = float(ml_dtypes.finfo(old.dtype).max)
    wanted = weight.view.to_stored(np.clip(new, -largest, largest))
    values = wanted.astype(old.dtype)
    stays = weight.view.to_stored(kept)
    # Weights left as they were keep every bit, also in float64, which is wider than the matrix;
    # and a kept weight that underflows would be one zero too many.
    same = wanted == weight.view.to_stored(weight.matrix)
    result: NDArray[Any] = np.where(stays & (same | (values == 0)), old, np.where(stays, values, 0))
    return result.astype(old.dtype)
