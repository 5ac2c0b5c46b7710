"""What follows a layer and is part of it in effect: its bias, a BatchNormalization, a skip path.

``y = gain · (W a + shift)`` per neuron holds for the *effective output* y: behind Gemm's alpha, an
Add or a Mul of a constant, or a BatchNormalization, whatever of them only this layer feeds.
A Reshape may part the neurons into several axes on the way. Refitting aims at y, and a constant on
the way can take up a change of the bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, prod

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.layers import Layer
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import attributes
from onnx_sipp.unfolding.base import MatMulUnfolding

__all__ = ["UNLIMITED", "BiasPlace", "Tail", "find_tail"]

UNLIMITED = (-inf, inf)

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class BiasPlace:
    """A stored constant that is added once per neuron.

    Attributes:
        name: of the constant.
        factor: ``[neurons]``; raising W a by d raises the constant by ``factor * d``.
    """

    name: str
    factor: Float64


@dataclass(frozen=True)
class Tail:
    """The effective output of a layer.

    Attributes:
        output: name of y.
        gain: ``[neurons]``, of y over W a.
        offset: ``[neurons]``, y where W a = 0.
        bias: where a change of the bias can go, None if nowhere; a bias that the original does not
            have (see `Model.is_spare`) only if there is no other place.
        skip: the tensor that is added to y right after it, None if none.
        span: between what limits the node behind (y plus skip) tells values apart: (0, ∞) for Relu.
    """

    output: str
    gain: Float64
    offset: Float64
    bias: BiasPlace | None
    skip: str | None
    span: tuple[float, float] = UNLIMITED

    def without_skip(self) -> Tail:
        """The same where the skip path cannot be known."""
        return self if self.skip is None else replace(self, skip=None, span=UNLIMITED)


def find_tail(model: Model, flow: Flow, layer: Layer) -> Tail | None:
    """Follow a layer's output through what acts on each neuron by itself.

    Args:
        model: is not changed.
        flow: of the model's main graph.
        layer: whose tail is looked for.

    Returns:
        None if the output is no function of W a and constants per neuron: the constant is batched
        (no single neuron axis), or a bias is computed or of another shape.
    """
    nodes = model.proto.graph.node
    groups, outs, _ = layer.view.matrix
    neurons = groups * outs
    gain, offset = np.full(neurons, layer.scale), np.zeros(neurons)
    own = _own_bias(model, flow, layer, gain)
    if layer.neuron_axis is None or own is None:
        return None
    added, own_place = own
    offset += added
    is_spare = own_place is not None and model.is_spare(own_place.name)
    bias, spare = (None, own_place) if is_spare else (own_place, None)
    output = layer.output
    sizes: tuple[int, ...] = (neurons,)
    while (reader := _only_reader(flow, output)) is not None:
        node = nodes[reader]
        split = _split(model, node, output, layer, neurons)
        step = (
            _normalization(model, node, output, sizes, layer)
            or _addition(model, node, output, sizes, layer)
            or _scaling(model, node, output, sizes, layer)
        )
        if split is None and step is None:
            break
        sizes = split or sizes
        scale, shift, place = step or (1.0, 0.0, None)
        gain, offset = gain * scale, offset * scale + shift
        if bias is None and place is not None and _exclusive(model, flow, place):
            bias = BiasPlace(place, gain.copy())
        output = node.output[0]
    skip = _skip(flow, nodes, output)
    last = output if skip is None else nodes[flow.readers[output][0]].output[0]
    return Tail(output, gain, offset, bias or spare, skip, _span(model, flow, last))


def _own_bias(
    model: Model, flow: Flow, layer: Layer, gain: Float64
) -> tuple[Float64, BiasPlace | None] | None:
    """What a layer adds by itself, and where that can be changed; None if that is not known."""
    node, neurons = model.proto.graph.node[layer.index], gain.size
    if not _has_bias(node):
        return np.zeros(neurons), None
    if layer.bias is None:
        return None
    own = model.read(layer.bias)
    if own.size != neurons or own.shape[-1:] != (neurons,):
        return None
    beta = float(attributes(node).get("beta", 1.0))
    can_change = beta != 0 and _exclusive(model, flow, layer.bias)
    place = BiasPlace(layer.bias, gain / beta) if can_change else None
    return beta * own.astype(np.float64).ravel(), place


def _exclusive(model: Model, flow: Flow, name: str) -> bool:
    """Whether a constant can be changed without effect elsewhere."""
    once = len(flow.readers[name]) == 1 and name not in flow.outputs
    return once and model.is_exclusive(name)


def _has_bias(node: NodeProto) -> bool:
    known = node.op_type in ("Conv", "ConvTranspose", "Gemm")
    return known and len(node.input) > 2 and bool(node.input[2])


def _only_reader(flow: Flow, name: str) -> int | None:
    readers = flow.readers[name]
    return readers[0] if len(readers) == 1 and name not in flow.outputs else None


def _is_convolution(layer: Layer) -> bool:
    """Whether its output is ``[batch, neurons, *spatial]``."""
    return not isinstance(layer.unfolding, MatMulUnfolding)


def _split(
    model: Model, node: NodeProto, output: str, layer: Layer, neurons: int
) -> tuple[int, ...] | None:
    """Sizes of the axes that a Reshape parts the neurons into, all others kept; None if not so."""
    if node.op_type != "Reshape" or node.domain not in ("", "ai.onnx") or node.input[0] != output:
        return None
    if layer.neuron_axis != -1 or layer.unfolding != MatMulUnfolding():
        return None
    shape = model.read(node.input[1]).tolist() if node.input[1] in model.stored else []
    sizes = tuple(size for size in shape if size != 0)  # 0 keeps an axis
    fits = sizes == tuple(shape[-len(sizes) :]) and len(sizes) < len(shape)
    return sizes if fits and min(sizes) > 0 and prod(sizes) == neurons else None


def _per_neuron(model: Model, name: str, layer: Layer, sizes: tuple[int, ...]) -> Float64 | None:
    """A stored constant as one value per neuron, None if it does not broadcast so."""
    if name not in model.stored:
        return None
    values, neurons = model.read(name), prod(sizes)
    if values.size != neurons or values.dtype.kind not in "fV":
        return None
    flat: Float64 = values.astype(np.float64).ravel()
    if not np.isfinite(flat).all():
        return None  # a mask: behind it nothing is left to aim at
    if len(sizes) > 1:
        return flat if values.shape[-len(sizes) :] == sizes else None
    axis = layer.neuron_axis
    assert axis is not None
    alone = -values.ndim <= axis and values.shape[axis] == neurons
    if _is_convolution(layer) and values.ndim > 1 - axis:
        return None  # the sum has more axes than the output
    return flat if alone else None


def _addition(
    model: Model, node: NodeProto, output: str, sizes: tuple[int, ...], layer: Layer
) -> tuple[Float64, Float64, str] | None:
    if node.op_type != "Add" or node.domain not in ("", "ai.onnx") or len(node.input) != 2:
        return None
    other = node.input[1] if node.input[0] == output else node.input[0]
    shift = None if other == output else _per_neuron(model, other, layer, sizes)
    return None if shift is None else (np.ones(prod(sizes)), shift, other)


def _scaling(
    model: Model, node: NodeProto, output: str, sizes: tuple[int, ...], layer: Layer
) -> tuple[Float64, Float64, None] | None:
    """Mul by a stored constant: one for all, or one per neuron."""
    if node.op_type != "Mul" or node.domain not in ("", "ai.onnx") or len(node.input) != 2:
        return None
    other, neurons = node.input[1] if node.input[0] == output else node.input[0], prod(sizes)
    if other in model.stored and other != output and model.read(other).shape in ((), (1,)):
        factor = float(model.read(other).item())
        return (np.full(neurons, factor), np.zeros(neurons), None) if isfinite(factor) else None
    scale = None if other == output else _per_neuron(model, other, layer, sizes)
    return None if scale is None else (scale, np.zeros(neurons), None)


def _normalization(
    model: Model, node: NodeProto, output: str, sizes: tuple[int, ...], layer: Layer
) -> tuple[Float64, Float64, str] | None:
    """BatchNormalization in inference mode with stored parameters, along the neuron axis."""
    if node.op_type != "BatchNormalization" or node.domain not in ("", "ai.onnx"):
        return None
    found = attributes(node)
    names = list(node.input[1:5])
    # Channels lie along axis 1; a Gemm's constant on the left has its neurons along axis 0.
    channels = _is_convolution(layer) or (layer.kind == "Gemm" and layer.neuron_axis == -1)
    if (
        node.input[0] != output
        or found.get("training_mode", 0)
        or len(names) != 4
        or not channels
        or any(name not in model.stored for name in names)
        or len(sizes) > 1
    ):
        return None
    scale, shift, mean, variance = (model.read(name).astype(np.float64) for name in names)
    if scale.shape != sizes:
        return None
    factor = scale / np.sqrt(variance + float(found.get("epsilon", 1e-5)))
    return factor, shift - mean * factor, names[1]


def _skip(flow: Flow, nodes: Sequence[NodeProto], output: str) -> str | None:
    reader = _only_reader(flow, output)
    if reader is None:
        return None
    node = nodes[reader]
    if node.op_type != "Add" or node.domain not in ("", "ai.onnx") or len(set(node.input)) != 2:
        return None
    other = node.input[1] if node.input[0] == output else node.input[0]
    return None if other in flow.constants else other


def _span(model: Model, flow: Flow, name: str) -> tuple[float, float]:
    """Between what limits the only reader of a tensor tells its values apart."""
    reader = _only_reader(flow, name)
    if reader is None:
        return UNLIMITED
    node = model.proto.graph.node[reader]
    if node.domain not in ("", "ai.onnx") or node.input[0] != name:
        return UNLIMITED
    limits = _LIMITS.get(node.op_type)
    return UNLIMITED if limits is None else limits(model, node)


def _of_sigmoid(_: Model, node: NodeProto) -> tuple[float, float]:
    found = attributes(node)
    alpha, beta = float(found.get("alpha", 0.2)), float(found.get("beta", 0.5))
    return (-beta / alpha, (1 - beta) / alpha) if alpha > 0 else UNLIMITED


def _of_clip(model: Model, node: NodeProto) -> tuple[float, float]:
    found = attributes(node)
    low = _limit(model, node, 1, found.get("min"))
    high = _limit(model, node, 2, found.get("max"))
    return -inf if low is None else low, inf if high is None else high


_LIMITS: Mapping[str, Callable[[Model, NodeProto], tuple[float, float]]] = {
    "Relu": lambda _, __: (0.0, inf),
    "HardSwish": lambda _, __: (-3.0, inf),
    "HardSigmoid": _of_sigmoid,
    "Clip": _of_clip,
}


def _limit(model: Model, node: NodeProto, place: int, attribute: float | None) -> float | None:
    """A limit of Clip: an attribute (before opset 11), or a stored constant; None if unknown."""
    if len(node.input) > place and node.input[place] in model.stored:
        return float(model.read(node.input[place]).item())
    return attribute
