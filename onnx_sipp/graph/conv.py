"""Conv: any number of spatial axes, groups, strides, dilations, pads, auto_pad."""

from __future__ import annotations

from math import prod

from onnx import NodeProto

from onnx_sipp.graph.node import Constants, LayerParts, NotPrunable, attributes
from onnx_sipp.graph.views import MatrixView
from onnx_sipp.unfolding import ConvUnfolding

__all__ = ["conv"]


def conv(node: NodeProto, constants: Constants) -> LayerParts | None:
    """See ONNX Conv: weight ``[out, in / group, *kernel]``, activation ``[batch, in, *spatial]``.

    Raises:
        NotPrunable: the weight is computed, or the activation is constant too.
    """
    activation, weight = node.input[0], node.input[1]
    if weight not in constants:
        return None
    tensor = constants.weight(weight)
    dims = tuple(tensor.dims)
    if activation in constants:
        raise NotPrunable("both its operands are constants", prod(dims))
    found = attributes(node)
    kernel = dims[2:]
    axes = len(kernel)
    groups = int(found.get("group", 1))
    if axes == 0 or groups < 1 or dims[0] % groups:
        raise NotPrunable(f"its weight of shape {list(dims)} does not fit {groups} groups")
    pads = found.get("pads") or [0] * (2 * axes)
    auto_pad = found.get("auto_pad") or "NOTSET"
    unfolding = ConvUnfolding(
        kernel=kernel,
        strides=tuple(found.get("strides") or [1] * axes),
        dilations=tuple(found.get("dilations") or [1] * axes),
        pads=tuple(zip(pads[:axes], pads[axes:], strict=True)),
        groups=groups,
        auto_pad=auto_pad,
    )
    view = MatrixView(dims, tuple(range(len(dims))), (groups, dims[0] // groups, prod(dims[1:])))
    bias = node.input[2] if len(node.input) > 2 and node.input[2] in constants.stored else None
    return LayerParts(weight, view, activation, unfolding, bias, neuron_axis=-1 - axes)
