"""Conv and ConvTranspose: any number of spatial axes, groups, strides, dilations, every pad."""

from __future__ import annotations

from math import prod
from typing import Any

from onnx import NodeProto

from onnx_sipp.graph.node import Constants, LayerParts, NotPrunable, attributes
from onnx_sipp.graph.views import MatrixView
from onnx_sipp.unfolding.base import Unfolding
from onnx_sipp.unfolding.conv import ConvUnfolding
from onnx_sipp.unfolding.transposed import ConvTransposeUnfolding

__all__ = ["conv", "conv_transpose"]


def conv(node: NodeProto, constants: Constants) -> LayerParts | None:
    """See ONNX Conv: weight ``[out, in / group, *kernel]``, activation ``[batch, in, *spatial]``.

    Raises:
        NotPrunable: the weight is computed, or the activation is constant too.
    """
    dims = _weight_shape(node, constants)
    if dims is None:
        return None
    found = attributes(node)
    groups = _groups(found, dims)
    unfolding = ConvUnfolding(**_windows(found, dims), groups=groups)
    matrix = (groups, dims[0] // groups, prod(dims[1:]))
    view = MatrixView(dims, tuple(range(len(dims))), matrix, positions=prod(dims[2:]))
    return _layer(node, constants, view, unfolding)


def conv_transpose(node: NodeProto, constants: Constants) -> LayerParts | None:
    """See ONNX ConvTranspose: weight ``[in, out / group, *kernel]``.

    Raises:
        NotPrunable: the weight is computed, or the activation is constant too.
    """
    dims = _weight_shape(node, constants)
    if dims is None:
        return None
    found = attributes(node)
    groups, axes = _groups(found, dims), len(dims) - 2
    shape = found.get("output_shape")  # some files give batch and channels too
    unfolding = ConvTransposeUnfolding(
        **_windows(found, dims),
        output_padding=tuple(found.get("output_padding") or [0] * axes),
        output_shape=tuple(shape[-axes:]) if shape else None,
        groups=groups,
    )
    split = (groups, dims[0] // groups, *dims[1:])
    matrix = (groups, dims[1], prod(dims[2:]) * split[1])
    view = MatrixView(dims, (0, 2, 1, *range(3, len(split))), matrix, split, prod(dims[2:]))
    return _layer(node, constants, view, unfolding)


def _weight_shape(node: NodeProto, constants: Constants) -> tuple[int, ...] | None:
    """Shape of the constant weight, None if it is no constant."""
    if node.input[1] not in constants:
        return None
    dims = tuple(constants.weight(node.input[1]).dims)
    if node.input[0] in constants:
        raise NotPrunable("both its operands are constants", prod(dims))
    return dims


def _groups(found: dict[str, Any], dims: tuple[int, ...]) -> int:
    groups = int(found.get("group", 1))
    if len(dims) < 3 or groups < 1 or dims[0] % groups:
        raise NotPrunable(f"its weight of shape {list(dims)} does not fit {groups} groups")
    return groups


def _windows(found: dict[str, Any], dims: tuple[int, ...]) -> dict[str, Any]:
    """What the attributes say of the windows."""
    axes = len(dims) - 2
    pads = found.get("pads") or [0] * (2 * axes)
    return {
        "kernel": dims[2:],
        "strides": tuple(found.get("strides") or [1] * axes),
        "dilations": tuple(found.get("dilations") or [1] * axes),
        "pads": tuple(zip(pads[:axes], pads[axes:], strict=True)),
        "auto_pad": found.get("auto_pad") or "NOTSET",
    }


def _layer(
    node: NodeProto, constants: Constants, view: MatrixView, unfolding: Unfolding
) -> LayerParts:
    bias = node.input[2] if len(node.input) > 2 and node.input[2] in constants.stored else None
    axis = 1 - len(view.stored)
    return LayerParts(node.input[1], view, node.input[0], unfolding, bias, neuron_axis=axis)
