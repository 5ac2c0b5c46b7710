"""Rules for layers, and for products of two activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_sipp.graph.dead.fan_in import FanIn
from onnx_sipp.graph.dead.fields import Field, Mask, Step, along, project
from onnx_sipp.graph.dead.scope import Scope
from onnx_sipp.graph.layers import Layer
from onnx_sipp.graph.node import attributes

__all__ = ["Weighing", "matrix_product"]

# Weights looked at in one go.
_BLOCK = 1 << 20


class Weighing:
    """A layer, seen as which weights read what.

    Args:
        layer: of the graph.
        fan_in: how it lies in the activation.
        node: that it is.
        scope: of the graph, with facts about the node's inputs.
        folds: whether weights on constant inputs can go, their sum taken up by a bias; None if they
            cannot, not even where the input is zero.

    Attributes:
        constants: ``[group, fan_in]``, the value of every input that is the same in all patches;
            NaN for the others.
        removable: ``[group, fan_in]``, inputs whose weights can go.
    """

    def __init__(
        self, layer: Layer, fan_in: FanIn, node: NodeProto, scope: Scope, *, folds: bool | None
    ) -> None:
        self._layer, self._fan_in, self._node, self._scope = layer, fan_in, node, scope
        self.constants = self._constants()
        self.removable: Mask = ~np.isnan(self.constants) if folds else self.constants == 0
        if folds is None:
            self.removable = np.zeros_like(self.removable)

    def step(self) -> Step:
        """What the layer makes of its input, and what it reads of it."""
        shape, name = self._output_shape(), self._layer.activation
        made = {} if shape is None else {self._layer.output: self._made().reshape(shape)}

        def reads(live: Mapping[str, Mask]) -> dict[str, Mask]:
            values = self._scope.value(name)
            if values is None or list(self._node.input).count(name) > 1:
                return {}
            neurons = self.live_neurons(live)
            inputs = np.zeros(self.removable.shape, np.bool_)
            for block, rows in self._rows():
                inputs |= ((rows != 0) & neurons[:, block, None]).any(axis=1)
            channels = self._fan_in.gathered(inputs & ~self.removable)
            laid = [1] * values.ndim
            laid[self._fan_in.along(values.ndim)] = -1
            return {name: project(channels.reshape(laid), values.shape)}

        return Step(made, reads)

    def live_neurons(self, live: Mapping[str, Mask]) -> Mask:
        """Which neurons somebody reads, ``[group, out]``."""
        mask, shape = live.get(self._layer.output), self._output_shape()
        matrix = self._layer.view.matrix[:2]
        if mask is None or shape is None:
            return np.ones(matrix, np.bool_)
        return project(mask, shape).reshape(matrix)

    def live_inputs(self, live: Mapping[str, Mask]) -> Mask:
        """Which inputs are read by anybody, in this layer or another, ``[group, fan_in]``."""
        mask = live.get(self._layer.activation)
        if mask is None:
            return np.ones(self.removable.shape, np.bool_)
        axis = self._fan_in.along(mask.ndim)
        others = tuple(other for other in range(mask.ndim) if other != axis)
        return self._fan_in.spread(np.any(mask, axis=others, keepdims=True).ravel())

    def _constants(self) -> Field:
        values = self._scope.value(self._layer.activation)
        if values is None:
            return self._fan_in.spread(np.full(1, np.nan))
        result = self._fan_in.spread(along(values, self._fan_in.along(values.ndim)))
        return np.where(result == 0, 0.0, np.nan) if self._fan_in.padded else result

    def _rows(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """The weights as they are now, ``[group, some outs, fan_in]``, a block at a time."""
        view, name, model = self._layer.view, self._layer.weight, self._scope.model
        groups, outs, fan_in = view.matrix
        if view.size <= _BLOCK or view.neuron_axis is None:
            yield slice(0, outs), view.to_matrix(model.read(name))
            return
        size = max(1, _BLOCK // (groups * fan_in))
        for first in range(0, outs, size):
            rows = slice(first, min(outs, first + size))
            slab = model.read_slab(name, view.neuron_axis, rows)
            yield rows, view.of_neurons(rows).to_matrix(slab)

    def _made(self) -> Field:
        """Value of every neuron all of whose inputs are constant, ``[neuron]``; else NaN."""
        bias = self._bias()
        varies = np.isnan(self.constants)[:, None, :]
        given = np.where(np.isnan(self.constants), 0.0, self.constants)
        result = np.empty(self._layer.view.matrix[:2])
        any_constant = not varies.all()  # mostly none is, and the product takes long
        for block, rows in self._rows():
            product = np.zeros(rows.shape[:2])
            if any_constant:
                product = np.einsum("gof,gf->go", rows.astype(np.float64), given)
            result[:, block] = np.where(((rows != 0) & varies).any(axis=2), np.nan, product)
        found = self._layer.scale * result.ravel() + bias
        return np.where(np.isfinite(found), found, np.nan)

    def _bias(self) -> Field:
        """What is added to every neuron, NaN if that varies."""
        if len(self._node.input) < 3 or not self._node.input[2]:
            return np.zeros(1)
        if self._layer.bias is None:
            return np.full(1, np.nan)
        beta = float(attributes(self._node).get("beta", 1.0))
        bias = beta * self._scope.model.read(self._layer.bias).astype(np.float64)
        by_row = bias.ndim > 1 and bias.size != bias.shape[-1]
        return np.full(1, np.nan) if by_row else bias.ravel()

    def _output_shape(self) -> tuple[int, ...] | None:
        """Of facts about the output: the neurons along their axis."""
        shape, axis = self._scope.shape(self._layer.output), self._layer.neuron_axis
        if shape is None or axis is None or len(shape) + axis < 0:
            return None
        result = [1] * len(shape)
        groups, outs, _ = self._layer.view.matrix
        result[axis] = groups * outs
        return tuple(result)


def matrix_product(node: NodeProto, scope: Scope) -> Step | None:
    """MatMul of two activations: a column of the result reads no other column on the right."""
    left, right = (scope.value(name) for name in node.input)
    if left is None or right is None or min(left.ndim, right.ndim) < 2:
        return None
    zero_rows = (left == 0).all(axis=-1, keepdims=True)
    zero_columns = (right == 0).all(axis=-2, keepdims=True)
    made = np.where(zero_rows | zero_columns, 0.0, np.nan)
    shapes = dict(zip(node.input, (left.shape, right.shape), strict=True))
    output = node.output[0]

    def reads(live: Mapping[str, Mask]) -> dict[str, Mask]:
        if len(shapes) == 1:  # the same tensor on both sides
            return {}
        used = live[output]
        by_side = (np.any(used, axis=-1, keepdims=True), np.any(used, axis=-2, keepdims=True))
        return {
            name: project(mask, shape)
            for (name, shape), mask in zip(shapes.items(), by_side, strict=True)
        }

    return Step({output: made}, reads)
