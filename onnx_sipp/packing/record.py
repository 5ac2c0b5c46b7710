"""What a packed model says of itself in its metadata, so that it can be unpacked to the bit."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto

from onnx_sipp.errors import SippError

__all__ = ["Home", "Record", "is_packed", "read_record", "remove_record", "write_record"]

KEY = "onnx_sipp.packed"
_MOST_BYTES = 32 << 20  # some hundred are needed for each packed tensor
_DAMAGES = (
    *(ValueError, KeyError, TypeError, IndexError, RecursionError),
    *(binascii.Error, zlib.error, DecodeError),
)  # fmt: skip


@dataclass(frozen=True)
class Home:
    """Where a tensor was.

    Attributes:
        index: among the initializers of the main graph, or among its nodes.
        holder: the initializer or the Constant node, without the elements.
    """

    index: int
    holder: TensorProto | NodeProto

    @property
    def name(self) -> str:
        """Of the tensor."""
        return self.holder.name if isinstance(self.holder, TensorProto) else self.holder.output[0]


@dataclass(frozen=True)
class Record:
    """Everything needed to unpack.

    Attributes:
        prefix: of all new names.
        homes: of the packed tensors.
    """

    prefix: str
    homes: Sequence[Home]


def is_packed(proto: ModelProto) -> bool:
    """Whether a model was packed."""
    return any(entry.key == KEY for entry in proto.metadata_props)


def write_record(proto: ModelProto, record: Record) -> None:
    """Put a record into the metadata of a model."""
    initializers: list[list[int | str]] = []
    constants: list[list[int | str]] = []
    for home in record.homes:
        kind = initializers if isinstance(home.holder, TensorProto) else constants
        kind.append([home.index, base64.b64encode(home.holder.SerializeToString()).decode()])
    content = {"prefix": record.prefix, "initializers": initializers, "constants": constants}
    text = json.dumps(content, separators=(",", ":"))
    value = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    proto.metadata_props.add(key=KEY, value=value)


def read_record(proto: ModelProto) -> Record:
    """The record of a packed model.

    Raises:
        SippError: there is none, or it is damaged.
    """
    found = [entry.value for entry in proto.metadata_props if entry.key == KEY]
    if not found:
        raise SippError(
            f"the model has no record of what was packed (metadata {KEY!r}): it was not packed by "
            "onnx-sipp, or another tool dropped its metadata; fold its constants instead, for "
            "example with onnxsim"
        )
    try:
        content = json.loads(_unpacked(base64.b64decode(found[0], validate=True)))
        homes = [
            Home(index, _parsed(TensorProto(), text)) for index, text in content["initializers"]
        ]
        homes += [Home(index, _parsed(NodeProto(), text)) for index, text in content["constants"]]
        return Record(str(content["prefix"]), homes)
    except _DAMAGES as error:
        raise SippError(
            f"the record of what was packed (metadata {KEY!r}) is damaged: {error}"
        ) from error


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, _MOST_BYTES)
    if not unpacker.eof:
        raise ValueError(f"it is cut off, or unpacks to more than {_MOST_BYTES:,} bytes")
    return text


def remove_record(proto: ModelProto) -> None:
    """Remove the record from the metadata."""
    kept = [entry for entry in proto.metadata_props if entry.key != KEY]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)


def _parsed(message: TensorProto | NodeProto, text: str) -> TensorProto | NodeProto:
    message.ParseFromString(base64.b64decode(text, validate=True))
    return message
