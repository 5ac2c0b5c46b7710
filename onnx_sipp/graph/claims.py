"""What a model file claims that would cost without end: sizes that overflow, calls that unfold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import FunctionProto, ModelProto, TensorProto

from onnx_sipp.errors import SippError
from onnx_sipp.graph.kinds import node_kind
from onnx_sipp.graph.walk import all_tensors, nodes_within

__all__ = ["MOST_MESSAGE_BYTES", "refuse_claims", "refuse_dims"]

MOST_MESSAGE_BYTES = (2 << 30) - 1  # of protobuf

# Nodes that a model may have once its functions are unfolded, and how deep calls may be nested.
_MOST_CALLS = 100_000
_DEEPEST = 64
_MOST_AXES = 64  # of numpy
_MOST_ELEMENTS = 1 << 62
# Elements that a byte can hold; and so many may be missing: to find that out later costs some
# megabytes, while to look at what is stored costs a copy of it.
_PER_BYTE, _MISSING = 8, 1 << 22
_FIELDS = (
    "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data"
)  # fmt: skip

_SINGLE = (str, bytes, Message)
_Key = tuple[str, str, str]


def refuse_claims(proto: ModelProto) -> None:
    """Check what later steps, runtimes included, would take at its word.

    Raises:
        SippError: a text is no UTF-8; a tensor has negative dims, too many, some whose product
            overflows, or far fewer elements than they say; functions call each other without end,
            too deep, or so often that they unfold to too many nodes.
    """
    try:
        _refuse_odd_texts(proto)
    except UnicodeDecodeError as error:
        raise _NOT_UTF8 from error
    for tensor in all_tensors(proto):
        refuse_dims(tensor)
        _refuse_shortage(tensor)
    for sparse in proto.graph.sparse_initializer:
        refuse_dims(TensorProto(name=sparse.values.name, dims=sparse.dims[: _MOST_AXES + 1]))
    if proto.functions:
        _refuse_calls(proto)


_NOT_UTF8 = SippError("a name or text in the model is no UTF-8; the file is damaged")


def _refuse_odd_texts(proto: ModelProto) -> None:
    """Look at all texts; what protobuf gives for one that is no UTF-8 depends on its version."""
    pending: list[Message] = [proto]
    while pending:
        message = pending.pop()
        if isinstance(message, TensorProto):
            texts = [message.name, message.doc_string]
            texts += [text for entry in message.external_data for text in (entry.key, entry.value)]
            _refuse_bytes(texts)
            continue  # its elements may be many
        for field, value in message.ListFields():
            if field.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE):
                continue
            values: list[Any] = [value] if isinstance(value, _SINGLE) else value
            if field.type == FieldDescriptor.TYPE_STRING:
                _refuse_bytes(values)
            else:
                pending.extend(values)


def _refuse_bytes(texts: Iterable[object]) -> None:
    if not all(isinstance(text, str) for text in texts):
        raise _NOT_UTF8


def refuse_dims(tensor: TensorProto) -> None:
    """Check the dims of a tensor.

    Raises:
        SippError: they are negative, too many, or their product overflows.
    """
    count = len(tensor.dims)
    if count > _MOST_AXES:
        raise SippError(
            f"tensor {tensor.name!r} has {count} dims, more than the {_MOST_AXES} that can be read"
        )
    if min(tensor.dims, default=0) < 0:
        raise SippError(f"tensor {tensor.name!r} has negative dims {list(tensor.dims)}")
    if prod(dim or 1 for dim in tensor.dims) > _MOST_ELEMENTS:
        raise SippError(
            f"tensor {tensor.name!r} has impossible dims {list(tensor.dims)}; the file is damaged"
        )


def _refuse_shortage(tensor: TensorProto) -> None:
    """Check that a tensor in the model itself has about as many elements as its dims say.

    Raises:
        SippError: it has far fewer, but room would be made for all of them.
    """
    claimed = prod(tensor.dims)
    if claimed <= _MISSING or tensor.data_location == TensorProto.EXTERNAL:
        return
    stored = len(tensor.raw_data) + sum(len(getattr(tensor, field)) for field in _FIELDS)
    if claimed > _PER_BYTE * stored + _MISSING:
        raise SippError(
            f"tensor {tensor.name!r} has fewer elements than its dims {list(tensor.dims)} say; the "
            "file is damaged"
        )


def _refuse_calls(proto: ModelProto) -> None:
    """Go through the functions, those that are called before those that call them."""
    functions = {_key(f.domain, f.name, f.overload): f for f in proto.functions}
    calls = {key: list(_calls(f, functions)) for key, f in functions.items()}
    sizes: dict[_Key, int] = {}
    depths: dict[_Key, int] = {}
    for first in functions:
        pending, open_ones = [first], set[_Key]()
        while pending:
            key = pending[-1]
            waiting = [one for one in calls[key] if one not in sizes]
            if key in sizes or not waiting:
                pending.pop()
                open_ones.discard(key)
                own = sum(1 for _ in nodes_within(functions[key].node))
                sizes[key] = own + sum(sizes[one] for one in calls[key])
                depths[key] = 1 + max((depths[one] for one in calls[key]), default=0)
                continue
            open_ones.add(key)
            if open_ones.intersection(waiting):
                raise SippError(f"the function {waiting[0][1]!r} calls itself")
            pending.extend(waiting)
    total = sum(
        sizes.get(_key(*node_kind(n), n.overload), 0) for n in nodes_within(proto.graph.node)
    )
    deepest = max(depths.values(), default=0)
    if deepest > _DEEPEST:
        raise SippError(f"functions call each other {deepest} deep; at most {_DEEPEST} can be read")
    if total > _MOST_CALLS:
        raise SippError(
            f"the functions of the model unfold to {total:,} nodes; at most {_MOST_CALLS:,} can be "
            "read"
        )


def _calls(function: FunctionProto, functions: dict[_Key, FunctionProto]) -> Iterator[_Key]:
    for node in nodes_within(function.node):
        key = _key(*node_kind(node), node.overload)
        if key in functions:
            yield key


def _key(domain: str, op_type: str, overload: str) -> _Key:
    return "" if domain == "ai.onnx" else domain, op_type, overload
