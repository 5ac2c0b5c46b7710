"""The message of a model, from bytes and back."""

from __future__ import annotations

import google.protobuf.message
from onnx import ModelProto, TensorProto

from onnx_sipp.errors import SippError
from onnx_sipp.graph.claims import refuse_claims

__all__ = ["parse", "put_inside", "serialized"]


def parse(data: bytes, what: str) -> ModelProto:
    """A message from its bytes.

    Args:
        data: all of them.
        what: they are, for people.

    Raises:
        SippError: they are no ONNX model, or claim more than they hold.
    """
    if not data:
        raise SippError(f"{what} is empty; export the model again")
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except google.protobuf.message.DecodeError as error:
        raise SippError(
            f"{what} is no ONNX model, or is truncated ({error}); "
            "check the download, or export the model again"
        ) from error
    if not proto.graph.node and not proto.graph.initializer:
        raise SippError(f"{what} holds no graph: it is no ONNX model, or an empty one")
    refuse_claims(proto)
    return proto


def serialized(proto: ModelProto) -> bytes:
    """The bytes of a message.

    Raises:
        SippError: larger than a protobuf message may be (2 GB).
    """
    try:
        return bytes(proto.SerializeToString())
    except (ValueError, google.protobuf.message.EncodeError) as error:
        raise SippError(
            f"the model cannot be serialised ({error}); models above 2 GB must keep their weights "
            "in external data"
        ) from error


def put_inside(tensor: TensorProto, raw: bytes) -> None:
    """Put the elements of a tensor into its message."""
    tensor.raw_data = raw
    tensor.ClearField("data_location")
    del tensor.external_data[:]
