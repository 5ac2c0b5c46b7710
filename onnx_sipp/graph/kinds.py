"""The kinds of layers: which nodes multiply a constant weight, and how each kind is seen.

A kind of layer is one function in a module of its family (`conv`, `matmul`) and one line in
`BUILDERS`. It looks at a node and returns how to see its weight and its activation, or raises
`NotPrunable` with the reason that the user will read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from onnx import NodeProto

from onnx_sipp.graph.conv import conv, conv_transpose
from onnx_sipp.graph.matmul import gemm, matmul
from onnx_sipp.graph.node import Constants, Label, LayerParts, NotPrunable
from onnx_sipp.graph.tensors import FLOAT_TYPES
from onnx_sipp.graph.views import MatrixView
from onnx_sipp.unfolding.base import Unfolding

__all__ = [
    "BUILDERS",
    "Layer",
    "Skipped",
    "as_layer",
    "known_as",
    "known_operators",
    "node_kind",
    "node_labels",
    "unique_labels",
]

Builder = Callable[[NodeProto, Constants], LayerParts | None]

BUILDERS: Mapping[tuple[str, str], Builder] = {
    ("", "Conv"): conv,
    ("", "ConvTranspose"): conv_transpose,
    ("", "Gemm"): gemm,
    ("", "MatMul"): matmul,
}

# Inputs of other operators that a constant may weigh, with why such a node is left alone.
_OTHER: Mapping[tuple[str, str], tuple[tuple[int, ...], str]] = {
    ("", "DeformConv"): ((1,), "DeformConv samples its input at computed places"),
    ("com.microsoft", "MatMulNBits"): (
        (1,),
        "weights that share bytes are not supported; prune before they are packed",
    ),
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
# Those of them that mostly compute shapes and indices: only stored floats count as weights there.
_OFTEN_SHAPES = frozenset({"Mul", "Div", "Gather"})


@dataclass(frozen=True)
class Layer:
    """A node that multiplies a constant weight with an activation.

    Attributes:
        name: unique in the model, see `Label`.
        op_type: of the node of the original, see `Label`.
        kind: operator of the node in the lowered model: Conv, Gemm, MatMul.
        index: place of the node in the main graph of the lowered model.
        weight: name of the stored constant, there.
        view: how ``W[group, out, fan_in]`` is seen in the stored tensor.
        activation: name of the tensor that the weight multiplies.
        unfolding: how that tensor becomes patches.
        output: name of the node's output.
        bias: name of the stored constant added per output, None if there is none or it varies.
        scale: constant factor of the product (Gemm's alpha).
        neuron_axis: axis of the output, from the end, that counts the neurons; None if there is no
            such single axis.
    """

    name: str
    op_type: str
    kind: str
    index: int
    weight: str
    view: MatrixView
    activation: str
    unfolding: Unfolding
    output: str
    bias: str | None
    scale: float
    neuron_axis: int | None


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


def as_layer(node: NodeProto, label: Label, index: int, constants: Constants) -> Layer | None:
    """See a node as a layer.

    Args:
        node: of the graph.
        label: what it is called in the report.
        index: its place in the graph.
        constants: of the graph.

    Returns:
        The layer, None if the node weighs no constant.

    Raises:
        NotPrunable: it does, but cannot be pruned.
    """
    build = BUILDERS.get(node_kind(node))
    if build is None:
        _refuse_other(node, constants)
        return None
    try:
        parts = build(node, constants)
        output = node.output[0]
    except (TypeError, ValueError, LookupError) as error:
        raise NotPrunable(f"the node is malformed: {error}") from error
    if parts is None:
        return None
    tensor = constants.stored[parts.weight]
    if tensor.data_type not in FLOAT_TYPES:
        raise NotPrunable(f"its weight {parts.weight!r} is not floating point", parts.view.size)
    if parts.view.size == 0:
        raise NotPrunable(f"its weight {parts.weight!r} has no elements")
    return Layer(
        name=label.name,
        op_type=label.op_type,
        kind=node.op_type,
        index=index,
        weight=parts.weight,
        view=parts.view,
        activation=parts.activation,
        unfolding=parts.unfolding,
        output=output,
        bias=parts.bias,
        scale=parts.scale,
        neuron_axis=parts.neuron_axis,
    )


def _refuse_other(node: NodeProto, constants: Constants) -> None:
    """Raise NotPrunable if a node that is no known layer weighs a constant of some size."""
    kind = node_kind(node)
    if kind in _OTHER:
        positions, reason = _OTHER[kind]
        names = [node.input[at] for at in positions if at < len(node.input) and node.input[at]]
        used = [name for name in names if _is_weight(name, node, constants)]
    elif kind[0] in ("", "ai.onnx.ml"):
        return
    else:  # of a foreign operator it is not known what it does; matrices are what it may weigh
        reason = f"operators of {kind[0]} are not supported yet"
        used = [
            name
            for name in node.input
            if name in constants.stored and len(constants.stored[name].dims) > 1
        ]
    if used:
        stored = [constants.stored[name].dims for name in used if name in constants.stored]
        raise NotPrunable(reason, sum(map(prod, stored)))


def _is_weight(name: str, node: NodeProto, constants: Constants) -> bool:
    if name not in constants.stored:
        return name in constants and node.op_type not in _OFTEN_SHAPES
    tensor = constants.stored[name]
    if node.op_type in _OFTEN_SHAPES:
        activations = [other for other in node.input if other not in constants]
        if tensor.data_type not in FLOAT_TYPES or not activations:
            return False
    return prod(tensor.dims) != 1


def node_labels(nodes: Sequence[NodeProto]) -> list[str]:
    """A name for each node of a graph that no other node of it has."""
    return unique_labels([(node.name, node.op_type) for node in nodes])


def unique_labels(nodes: Sequence[tuple[str, str]]) -> list[str]:
    """The same, of the nodes' names and operators."""
    count = Counter(name for name, _ in nodes)
    taken = {name for name, times in count.items() if times == 1}
    labels = []
    for index, (name, op_type) in enumerate(nodes):
        label = name
        if not label or count[label] > 1:
            label = f"{label or op_type}#{index}"
            while label in taken:
                label += "'"
            taken.add(label)
        labels.append(label)
    return labels


def node_kind(node: NodeProto) -> tuple[str, str]:
    """Domain and operator; ONNX's own domain is ``""``."""
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type)


def known_as(node: NodeProto) -> str:
    """The operator for people: with its domain if that is not ONNX's own."""
    domain, op_type = node_kind(node)
    return f"{domain}.{op_type}" if domain else op_type


def known_operators(others: Iterable[tuple[str, str]] = ()) -> set[str]:
    """Names of all operators in the tables above, and of some others, for people."""
    return {f"{domain}.{op}" if domain else op for domain, op in (*BUILDERS, *_OTHER, *others)}
