"""Undo what onnxruntime's optimiser and quantiser add to a model without need."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from onnx_sipp.graph.walk import all_nodes
from onnx_sipp.quantizing.zeros import name_in_file, origin_of

__all__ = ["tidied"]

# Of windows; the operators' text, not their schema, says that they are ones where they are missing.
_ONES = ("strides", "dilations")
# IR version from which on initializers need not be inputs.
OWN_TENSORS = 4
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def tidied(proto: ModelProto, original: ModelProto) -> ModelProto:
    """The same model, smaller, with what the file said of itself before.

    What an original node, input, output or weight was called it is called still. The tensors
    between nodes, of which the quantiser renamed most, get short names.

    Args:
        proto: what the quantiser made; is changed.
        original: the model that it was made of.
    """
    _restore_header(proto, original)
    _raise_version(proto)
    _drop_defaults(proto)
    graph = proto.graph
    del graph.value_info[:]
    _share_constants(graph)
    _shorten_names(graph, original.graph)
    return proto


def _restore_header(proto: ModelProto, original: ModelProto) -> None:
    """What people wrote into the file, and only the operator sets that are used."""
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(proto, field, getattr(original, field))
    del proto.metadata_props[:]
    proto.metadata_props.extend(original.metadata_props)
    proto.graph.name, proto.graph.doc_string = original.graph.name, original.graph.doc_string
    used = {_domain(node.domain) for node in all_nodes(proto)}
    used |= {_domain(entry.domain) for entry in original.opset_import}
    kept = [entry for entry in proto.opset_import if _domain(entry.domain) in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)


def _raise_version(proto: ModelProto) -> None:
    """The IR version that the operators ask for, which the quantiser may have raised.

    Below version 4 every stored tensor is an input as well, and so cannot be packed; that ends.
    """
    before = proto.ir_version
    needed = helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True)
    proto.ir_version = max(before, needed)
    if before < OWN_TENSORS <= proto.ir_version:
        stored = {tensor.name for tensor in proto.graph.initializer}
        inputs = [value for value in proto.graph.input if value.name not in stored]
        del proto.graph.input[:]
        proto.graph.input.extend(inputs)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _drop_defaults(proto: ModelProto) -> None:
    """Leave out attributes that say what the operator would do without them."""
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    for node in all_nodes(proto):
        version = versions.get(node.domain, 0)
        if node.domain or not onnx.defs.has(node.op_type, version, ""):
            continue
        known = onnx.defs.get_schema(node.op_type, version, "").attributes
        kept = [
            attribute
            for attribute in node.attribute
            if (attribute.name not in known or attribute != known[attribute.name].default_value)
            and not (attribute.name in _ONES and set(attribute.ints) == {1})
        ]
        if len(kept) < len(node.attribute):
            del node.attribute[:]
            node.attribute.extend(kept)


def _share_constants(graph: GraphProto) -> None:
    """Keep one of all initializers that are equal: most zero points and some scales are."""
    fixed = _fixed_names(graph)
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    kept = []
    for tensor in graph.initializer:
        nameless = TensorProto()
        nameless.CopyFrom(tensor)
        nameless.name = ""
        key = nameless.SerializeToString(deterministic=True)
        if tensor.name not in fixed and first.setdefault(key, tensor.name) != tensor.name:
            same[tensor.name] = first[key]
        else:
            kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]


def _shorten_names(graph: GraphProto, original: GraphProto) -> None:
    fixed = _fixed_names(graph)
    weights = {tensor.name for tensor in original.initializer}
    weights -= {tensor.name for tensor in graph.initializer}
    taken = fixed | weights
    short = (name for name in _short_names() if name not in taken)
    names: dict[str, str] = {}

    def renamed(name: str) -> str:
        if not name or name in fixed:
            return name
        if name not in names:
            names[name] = next(short)
        return names[name]

    for tensor in graph.initializer:
        origin = origin_of(name_in_file(tensor.name), weights)
        if len(tensor.dims) > 1 and origin and tensor.name not in fixed:
            names[tensor.name] = origin
            weights.discard(origin)
    _rename(graph, renamed)
    known = {node.name for node in original.node}
    for node in graph.node:
        name = node.name.removesuffix("_quant")  # of operators on integers
        name = name if name in known else name.removesuffix("_MatMul")  # of what was a Gemm
        node.name = name if name in known else ""
        known.discard(name)


def _rename(graph: GraphProto, renamed: Callable[[str], str]) -> None:
    for tensor in graph.initializer:
        tensor.name = renamed(tensor.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = renamed(annotation.tensor_name)
    for node in graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]


def _fixed_names(graph: GraphProto) -> set[str]:
    """Inputs, outputs, and whatever a subgraph mentions, which may mean a tensor outside of it."""
    names = {value.name for value in (*graph.input, *graph.output)}
    for node in _nested(graph):
        names.update(node.input, node.output)
    return names


def _nested(graph: GraphProto) -> Iterator[NodeProto]:
    """Nodes of all subgraphs; also a node that only stands for the outputs of one."""
    pending = [
        inner
        for node in graph.node
        for attribute in node.attribute
        for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else []))
    ]
    while pending:
        inner = pending.pop()
        outputs = [value.name for value in inner.output]
        yield NodeProto(input=outputs)
        for node in inner.node:
            yield node
            for attribute in node.attribute:
                pending.extend(attribute.graphs)
                if attribute.HasField("g"):
                    pending.append(attribute.g)


def _short_names() -> Iterator[str]:
    """Names of one letter and ever more digits."""
    number = 0
    while True:
        digits, rest = "", number
        while rest or not digits:
            rest, digit = divmod(rest, len(_DIGITS))
            digits = _DIGITS[digit] + digits
        yield f"q{digits}"
        number += 1
