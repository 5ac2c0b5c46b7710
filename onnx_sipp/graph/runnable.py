"""A model as a runtime gets it: a message, and large constants that it takes from memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

__all__ = ["Runnable", "lent_reference", "without_initializers"]


class Runnable(NamedTuple):
    """A model for a runtime.

    Attributes:
        data: the serialised message.
        folder: of the external data that it refers to, None if there is none.
        lent: large constants by name, of which the message only has the type; the runtime takes
            them from memory, so that they are not copied into it and out again.
    """

    data: bytes
    folder: Path | None
    lent: Mapping[str, NDArray[Any]]


def lent_reference(tensor: TensorProto, name: str) -> TensorProto:
    """An initializer without its elements, which a runtime is given in memory."""
    result = TensorProto(
        name=name,
        data_type=tensor.data_type,
        dims=tensor.dims,
        data_location=TensorProto.EXTERNAL,
    )
    result.external_data.add(key="location", value="lent")
    return result


def without_initializers(proto: ModelProto) -> ModelProto:
    """A copy without the initializers of the main graph, which may be large."""
    result = ModelProto()
    for source, target, left_out in (
        (proto, result, "graph"),
        (proto.graph, result.graph, "initializer"),
    ):
        for field, value in source.ListFields():
            if field.name == left_out:
                continue
            if isinstance(value, str | int | float | bytes):
                setattr(target, field.name, value)
            else:
                getattr(target, field.name).MergeFrom(value)
    return result
