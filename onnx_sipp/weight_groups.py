"""Group layers by the stored constants that they multiply: those of one share a weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.errors import SippError
from onnx_sipp.graph.layers import Layer
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.sharing import positions
from onnx_sipp.memory import Plan
from onnx_sipp.pruning.patterns import Blocks, NofM
from onnx_sipp.weights import Weight

__all__ = ["group_weights"]


def group_weights(
    model: Lowered,
    layers: Sequence[Layer],
    block_size: int = Plan.block,
    pattern: NofM | Blocks | None = None,
) -> list[Weight]:
    """Gather layers by the stored elements that they multiply, in graph order.

    Args:
        model: that the layers belong to.
        layers: two of them multiply the same elements, or have none in common.
        block_size: weights that are worked on at a time.
        pattern: that zeros have to lie in; fits all these layers.

    Raises:
        SippError: a weight is not finite, in float32.
    """
    groups: dict[int, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(model.first_element(layer.weight), []).append(layer)
    weights = [
        Weight(users[0].weight, model, tuple(users), _places(model, users), block_size, pattern)
        for users in groups.values()
    ]
    for weight in weights:
        if not weight.is_finite:
            raise SippError(
                f"the weight {weight.name!r} of layer {weight.layers[0].name!r} holds infinities "
                "or NaN; mend the model, or exclude the layer"
            )
    return weights


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
