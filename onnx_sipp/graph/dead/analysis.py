"""Go through a graph forwards for what is constant, and backwards for what nobody reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_sipp.graph.dead.elementwise import (
    ELEMENTWISE,
    dropout,
    elementwise,
    normalization,
    product,
)
from onnx_sipp.graph.dead.fan_in import FanIn
from onnx_sipp.graph.dead.fields import Mask, Step
from onnx_sipp.graph.dead.moving import MOVING, measuring, moving
from onnx_sipp.graph.dead.scope import Scope
from onnx_sipp.graph.dead.spatial import padding, pooling, resizing
from onnx_sipp.graph.dead.weighing import Weighing, matrix_product
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.kinds import as_layer, node_kind
from onnx_sipp.graph.layers import Layer
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import Label, NotPrunable
from onnx_sipp.graph.shapes import infer_kinds

__all__ = ["LayerFacts", "dead_paths"]

Rule = Callable[[NodeProto, Scope], Step | None]

_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(MOVING, moving),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"), pooling),
    **dict.fromkeys(("Shape", "Size"), measuring),
    **dict.fromkeys(("Resize", "Upsample"), resizing),
    "BatchNormalization": normalization,
    "Dropout": dropout,
    "MatMul": matrix_product,
    "Mul": product,
    "Pad": padding,
}


@dataclass(frozen=True)
class LayerFacts:
    """What is dead around a layer.

    Attributes:
        unread: ``[group, out]``, neurons that reach no output of the graph.
        unread_inputs: ``[group, fan_in]``, inputs that reach none, through this layer or another.
        constants: ``[group, fan_in]``, the value of inputs that are the same in every patch of
            every sample; NaN for the others.
        removable: ``[group, fan_in]``, constant inputs whose weights can go.
    """

    unread: NDArray[np.bool_]
    unread_inputs: NDArray[np.bool_]
    constants: NDArray[np.float64]
    removable: NDArray[np.bool_]


def dead_paths(
    model: Model,
    flow: Flow,
    layers: Sequence[Layer],
    folds: Mapping[int, bool],
    also_read: Collection[str] = (),
) -> list[LayerFacts]:
    """Find what is dead in a model as its weights are now.

    Args:
        model: is not changed.
        flow: of its main graph.
        layers: that are asked for.
        folds: by index, layers whose weights on constant inputs are to go: True if a bias can take
            up any constant, False if only zeros can be done without.
        also_read: tensors that are read by what does not stand in the graph.
    """
    scope = Scope(model, flow.constants, infer_kinds(model))
    nodes = model.proto.graph.node
    steps: dict[int, Step] = {}
    weighing: dict[int, Weighing] = {}
    for index in flow.order:
        node = nodes[index]
        scope.learn_sizes(node)
        layer = _layer(node, index, flow)
        fan_in = None if layer is None else FanIn.of(layer)
        step: Step | None
        if layer is not None and fan_in is not None:
            weighing[index] = Weighing(layer, fan_in, node, scope, folds=folds.get(index))
            step = weighing[index].step()
        else:
            rule = _RULES.get(node.op_type) if node_kind(node)[0] == "" else None
            step = rule(node, scope) if rule is not None else None
        if step is not None:
            steps[index] = step
            scope.values.update(step.values)
    wanted = {*flow.outputs, *also_read, *_loose_ends(flow, nodes)}
    live = _live(flow, scope, steps, wanted)
    return [_facts(weighing.get(layer.index), layer, live) for layer in layers]


def _layer(node: NodeProto, index: int, flow: Flow) -> Layer | None:
    """The layer that a node is, also one that is not pruned."""
    try:
        return as_layer(node, Label(node.name, node.op_type), index, flow.constants)
    except NotPrunable:
        return None


def _live(
    flow: Flow, scope: Scope, steps: Mapping[int, Step], wanted: Collection[str]
) -> dict[str, Mask]:
    """Which elements of the tensors reach an output; whole tensors where a node is not known."""
    live = {
        name: np.full(values.shape, name in wanted)
        for name, values in scope.values.items()
        if name not in flow.constants.stored
    }
    for index in reversed(flow.order):
        reads = steps[index].reads(live) if index in steps else {}
        for name in set(flow.reads[index]) & live.keys():
            live[name] |= reads.get(name, np.True_)
    return live


def _loose_ends(flow: Flow, nodes: Sequence[NodeProto]) -> set[str]:
    """Outputs of nodes that nothing comes of: they are there for somebody outside the graph."""
    return {
        name
        for node in nodes
        if not any(flow.readers[name] or name in flow.outputs for name in node.output)
        for name in node.output
    }


def _facts(weighing: Weighing | None, layer: Layer, live: Mapping[str, Mask]) -> LayerFacts:
    groups, outs, fan_in = layer.view.matrix
    if weighing is None:  # its unfolding is of an unknown kind
        nothing = np.zeros((groups, fan_in), np.bool_)
        unread = np.zeros((groups, outs), np.bool_)
        return LayerFacts(unread, nothing, np.full(nothing.shape, np.nan), nothing)
    return LayerFacts(
        unread=~weighing.live_neurons(live),
        unread_inputs=~weighing.live_inputs(live),
        constants=weighing.constants,
        removable=weighing.removable,
    )
