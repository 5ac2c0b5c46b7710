"""Which nodes multiply a constant weight, and which of those can be pruned.

A kind of layer is one function in a module of its family (`conv`, `matmul`) and one line in
`BUILDERS`. It looks at a node and returns how to see its weight and its activation, or raises
`NotPrunable` with the reason that the user will read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from math import prod

from onnx import GraphProto, ModelProto, NodeProto

from onnx_sipp.errors import UsageError
from onnx_sipp.graph.conv import conv
from onnx_sipp.graph.lens import Readers
from onnx_sipp.graph.matmul import gemm, matmul
from onnx_sipp.graph.model import Model, all_tensors
from onnx_sipp.graph.node import Constants, LayerParts, NotPrunable
from onnx_sipp.graph.tensors import FLOAT_TYPES
from onnx_sipp.graph.views import MatrixView
from onnx_sipp.unfolding import Unfolding

__all__ = ["BUILDERS", "Findings", "Layer", "Skipped", "find_layers"]

Builder = Callable[[NodeProto, Constants], LayerParts | None]

BUILDERS: Mapping[tuple[str, str], Builder] = {
    ("", "Conv"): conv,
    ("", "Gemm"): gemm,
    ("", "MatMul"): matmul,
}

# Inputs of other operators that a constant may weigh, with why such a node is left alone.
_OTHER: Mapping[tuple[str, str], tuple[tuple[int, ...], str]] = {
    ("", "ConvTranspose"): ((1,), "ConvTranspose is not supported yet"),
    ("", "DeformConv"): ((1,), "DeformConv samples its input at computed places"),
    ("", "LSTM"): ((1, 2), "LSTM is not supported yet"),
    ("", "GRU"): ((1, 2), "GRU is not supported yet"),
    ("", "RNN"): ((1, 2), "RNN is not supported yet"),
    ("", "Einsum"): ((0, 1), "Einsum is not supported yet"),
    ("", "ConvInteger"): ((1,), "integer weights are not supported yet"),
    ("", "MatMulInteger"): ((0, 1), "integer weights are not supported yet"),
    ("", "QLinearConv"): ((3,), "integer weights are not supported yet"),
    ("", "QLinearMatMul"): ((0, 3), "integer weights are not supported yet"),
    ("com.microsoft", "FusedConv"): ((1,), "com.microsoft operators are not supported yet"),
    ("com.microsoft", "FusedMatMul"): ((0, 1), "com.microsoft operators are not supported yet"),
    ("com.microsoft", "FusedGemm"): ((0, 1), "com.microsoft operators are not supported yet"),
    ("com.microsoft", "Attention"): ((1,), "com.microsoft operators are not supported yet"),
    ("com.microsoft", "QAttention"): ((1,), "com.microsoft operators are not supported yet"),
    ("com.microsoft", "MatMulNBits"): ((1,), "packed integer weights cannot hold single zeros"),
    ("com.microsoft.nchwc", "Conv"): (
        (1,),
        "blocked layouts are not supported; prune before onnxruntime optimises the file",
    ),
    ("", "BatchNormalization"): ((1,), "a factor per channel is no weight matrix"),
    ("", "InstanceNormalization"): ((1,), "a factor per channel is no weight matrix"),
    ("", "LayerNormalization"): ((1,), "a factor per feature is no weight matrix"),
    ("", "GroupNormalization"): ((1,), "a factor per channel is no weight matrix"),
    ("", "RMSNormalization"): ((1,), "a factor per feature is no weight matrix"),
    ("", "PRelu"): ((1,), "a slope per channel is no weight matrix"),
    ("", "Mul"): ((0, 1), "an elementwise factor is no weight matrix"),
    ("", "Div"): ((1,), "an elementwise divisor is no weight matrix"),
    ("", "Gather"): ((0,), "an embedding table is looked up, not multiplied"),
}


@dataclass(frozen=True)
class Layer:
    """A node that multiplies a constant weight with an activation.

    Attributes:
        name: unique in the model; the node's own name where that is unique, else made from its op
            and place.
        op_type: as in the graph, with the domain if it is not ONNX's own.
        index: place of the node in the main graph.
        weight: name of the stored constant.
        view: how ``W[group, out, fan_in]`` is seen in the stored tensor.
        activation: name of the tensor that the weight multiplies.
        unfolding: how that tensor becomes patches.
        output: name of the node's output.
        bias: name of the stored constant added per output, None if there is none or it varies.
        scale: constant factor of the product (Gemm's alpha).
    """

    name: str
    op_type: str
    index: int
    weight: str
    view: MatrixView
    activation: str
    unfolding: Unfolding
    output: str
    bias: str | None
    scale: float


@dataclass(frozen=True)
class Skipped:
    """A node that multiplies a constant and is left alone.

    Attributes:
        name: as `Layer.name`, with the path of subgraphs it lies in.
        op_type: as `Layer.op_type`.
        parameters: elements of the constant, 0 if unknown.
        reason: why, for people.
    """

    name: str
    op_type: str
    parameters: int
    reason: str


@dataclass(frozen=True)
class Findings:
    """What `find_layers` saw.

    Attributes:
        layers: prunable layers, in graph order.
        skipped: nodes that multiply a constant and are not prunable, in graph order.
        prunable: elements of all prunable weights, shared ones once.
        parameters: elements of all floating-point constants of the model.
    """

    layers: tuple[Layer, ...]
    skipped: tuple[Skipped, ...]
    prunable: int
    parameters: int


def find_layers(
    model: Model, exclude_nodes: Sequence[str] = (), exclude_op_types: Sequence[str] = ()
) -> Findings:
    """List the prunable layers of a model, and the nodes left alone with the reason.

    Args:
        model: is not changed.
        exclude_nodes: globs over names of nodes to leave alone.
        exclude_op_types: operator types to leave alone, globs too.

    Raises:
        SippError: the graph is damaged beyond reading.
    """
    proto = model.proto
    labels = _labels(proto.graph)
    constants = Constants.of(proto.graph, model.stored)
    candidates: list[Layer] = []
    skipped: list[tuple[int, Skipped]] = []
    for index, (node, label) in enumerate(zip(proto.graph.node, labels, strict=True)):
        try:
            layer = _as_layer(node, label, index, constants)
            if layer is not None:
                candidates.append(layer)
        except NotPrunable as found:
            skipped.append((index, Skipped(label, _op(node), found.parameters, str(found))))
        skipped.extend((index, skip) for skip in _inside(node, label))
    skipped.extend((len(labels), skip) for skip in _in_functions(proto))
    _refuse_idle_globs(exclude_nodes, labels)
    wanted: list[Layer] = []
    excluded: list[Layer] = []
    for layer in candidates:
        out = _matches(layer.name, exclude_nodes) or _matches(layer.op_type, exclude_op_types)
        (excluded if out else wanted).append(layer)
    skipped.extend((layer.index, _excluded(layer)) for layer in excluded)
    layers, shared = _only_layers_read(wanted, Readers(proto))
    skipped.extend(shared)
    skipped.sort(key=lambda item: item[0])
    return Findings(
        layers=layers,
        skipped=tuple(skip for _, skip in skipped),
        prunable=sum({layer.weight: layer.view.size for layer in layers}.values()),
        parameters=_parameters(model),
    )


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _excluded(layer: Layer) -> Skipped:
    return Skipped(layer.name, layer.op_type, layer.view.size, "excluded by the user")


def _refuse_idle_globs(globs: Sequence[str], labels: Sequence[str]) -> None:
    for glob in globs:
        if not any(fnmatchcase(label, glob) for label in labels):
            close = get_close_matches(glob, labels, 3)
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise UsageError(f"no node is called {glob!r}{hint}")


def _as_layer(node: NodeProto, label: str, index: int, constants: Constants) -> Layer | None:
    """The layer that a node is, None if it weighs no constant; raises NotPrunable."""
    build = BUILDERS.get(_kind(node))
    if build is None:
        _refuse_other(node, constants)
        return None
    try:
        parts = build(node, constants)
    except (TypeError, ValueError, IndexError) as error:
        raise NotPrunable(f"the node is malformed: {error}") from error
    if parts is None:
        return None
    tensor = constants.stored[parts.weight]
    if tensor.data_type not in FLOAT_TYPES:
        raise NotPrunable(f"its weight {parts.weight!r} is not floating point", parts.view.size)
    if parts.view.size == 0:
        raise NotPrunable(f"its weight {parts.weight!r} has no elements")
    return Layer(
        name=label,
        op_type=_op(node),
        index=index,
        weight=parts.weight,
        view=parts.view,
        activation=parts.activation,
        unfolding=parts.unfolding,
        output=node.output[0],
        bias=parts.bias,
        scale=parts.scale,
    )


def _refuse_other(node: NodeProto, constants: Constants) -> None:
    """Raise NotPrunable if a node that is no known layer weighs a constant of some size."""
    positions, reason = _OTHER.get(_kind(node), ((), ""))
    for position in positions:
        name = node.input[position] if position < len(node.input) else ""
        if not name or name not in constants:
            continue
        size = prod(constants.stored[name].dims) if name in constants.stored else 0
        if size != 1:
            raise NotPrunable(reason, size)


def _only_layers_read(
    candidates: list[Layer], readers: Readers
) -> tuple[tuple[Layer, ...], list[tuple[int, Skipped]]]:
    """Leave out weights that anything but a layer reads: their zeros would act elsewhere too."""
    as_weight = Counter(layer.weight for layer in candidates)
    layers, refused = [], []
    for layer in candidates:
        others = readers.beyond(
            layer.weight, as_weight[layer.weight], {c.index for c in candidates}
        )
        if others:
            reason = f"its weight {layer.weight!r} is also read by {others}"
            refused.append(
                (layer.index, Skipped(layer.name, layer.op_type, layer.view.size, reason))
            )
        else:
            layers.append(layer)
    return tuple(layers), refused


def _inside(node: NodeProto, label: str) -> Iterator[Skipped]:
    """Nodes in the subgraphs of a node that weigh constants, at any depth."""
    pending = [(label, node)]
    while pending:
        path, parent = pending.pop()
        for attribute in parent.attribute:
            for graph in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
                where = f"{path} > {attribute.name}"
                yield from _weighing_nodes(graph, where, "it lies in a subgraph, not supported yet")
                labels = _labels(graph)
                pending.extend(
                    (f"{where} > {name}", inner)
                    for name, inner in zip(labels, graph.node, strict=True)
                )


def _weighing_nodes(graph: GraphProto, where: str, reason: str) -> Iterator[Skipped]:
    stored = {tensor.name: prod(tensor.dims) for tensor in graph.initializer}
    for label, node in zip(_labels(graph), graph.node, strict=True):
        weighs = _kind(node) in BUILDERS or _kind(node) in _OTHER
        if weighs and (_kind(node) in BUILDERS or any(name in stored for name in node.input)):
            size = sum(stored.get(name, 0) for name in node.input[:2])
            yield Skipped(f"{where} > {label}", _op(node), size, reason)


def _in_functions(proto: ModelProto) -> Iterator[Skipped]:
    for function in proto.functions:
        graph = GraphProto(node=function.node)
        reason = "it lies in a model-local function, not supported yet"
        yield from _weighing_nodes(graph, f"function {function.name}", reason)


def _labels(graph: GraphProto) -> list[str]:
    """A name for each node that no other node of the graph has."""
    count = Counter(node.name for node in graph.node)
    taken = {name for name, times in count.items() if times == 1}
    labels = []
    for index, node in enumerate(graph.node):
        label = node.name
        if not label or count[label] > 1:
            label = f"{label or node.op_type}#{index}"
            while label in taken:
                label += "'"
            taken.add(label)
        labels.append(label)
    return labels


def _kind(node: NodeProto) -> tuple[str, str]:
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type)


def _op(node: NodeProto) -> str:
    domain, op_type = _kind(node)
    return f"{domain}.{op_type}" if domain else op_type


def _parameters(model: Model) -> int:
    return sum(
        prod(tensor.dims)
        for tensor in all_tensors(model.proto)
        if tensor.data_type in FLOAT_TYPES and all(dim >= 0 for dim in tensor.dims)
    )
