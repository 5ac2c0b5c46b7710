"""Shapes of the tensors of the main graph, as far as the graph alone says them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from onnx_sipp.graph.model import Model

__all__ = ["Shape", "TensorKind", "infer_kinds"]

Shape = tuple[int | None, ...]

# Constants of up to so many elements may tell a shape.
_SMALL = 1024


@dataclass(frozen=True)
class TensorKind:
    """Type of a tensor.

    Attributes:
        element: ``TensorProto.DataType``, 0 if unknown.
        shape: None for an axis whose length is open.
    """

    element: int
    shape: Shape


def infer_kinds(model: Model) -> dict[str, TensorKind]:
    """Shapes that follow from those of the inputs; tensors whose rank is unknown are left out.

    What the file notes about inner tensors is not trusted: it may be stale.

    Args:
        model: is not changed.
    """
    proto = _skeleton(model)
    try:
        graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    except Exception:  # it raises what its C++ parts raise, on operators it dislikes
        graph = proto.graph
    kinds = {
        name: TensorKind(tensor.data_type, tuple(tensor.dims))
        for name, tensor in model.stored.items()
        if all(dim >= 0 for dim in tensor.dims)
    }
    for value in (*graph.input, *graph.value_info, *graph.output):
        kinds.update(_kind(value))
    return kinds


def _kind(value: ValueInfoProto) -> Iterator[tuple[str, TensorKind]]:
    tensor = value.type.tensor_type
    if value.type.HasField("tensor_type") and tensor.HasField("shape"):
        shape = (dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
        yield value.name, TensorKind(tensor.elem_type, tuple(shape))


def _skeleton(model: Model) -> ModelProto:
    """The model without the payload of large constants."""
    source = model.proto
    graph = onnx.GraphProto(name="skeleton", node=source.graph.node, input=source.graph.input)
    for tensor in source.graph.initializer:
        if prod(tensor.dims) > _SMALL:
            graph.initializer.append(
                TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
            )
        else:
            graph.initializer.append(model.sites.with_payload(tensor.name))
    graph.output.extend(ValueInfoProto(name=value.name) for value in source.graph.output)
    return ModelProto(
        ir_version=source.ir_version,
        opset_import=source.opset_import,
        functions=source.functions,
        graph=graph,
    )
