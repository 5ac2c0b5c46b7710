"""Payloads of TensorProto: read them, and write them back to the field they came from."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnx_sipp.errors import SippError

__all__ = [
    "FLOAT_TYPES",
    "is_external",
    "numpy_dtype",
    "payload_bytes",
    "read_inline",
    "write_inline",
]

FLOAT_TYPES = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
)
# Types that onnx packs more densely than numpy does.
_PACKED_BITS = {
    **dict.fromkeys(("int2", "uint2"), 2),
    **dict.fromkeys(("int4", "uint4", "float4_e2m1fn"), 4),
    **dict.fromkeys(("float6_e2m3fn", "float6_e3m2fn"), 6),
}


def numpy_dtype(tensor: TensorProto) -> np.dtype[Any]:
    """Numpy's type for the elements (ml_dtypes' where numpy has none).

    Raises:
        SippError: onnx knows no such element type.
    """
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except (KeyError, ValueError, TypeError) as error:
        raise SippError(
            f"tensor {tensor.name!r} has the unknown element type {tensor.data_type}"
        ) from error


def payload_bytes(tensor: TensorProto) -> int:
    """Bytes that the elements need by type and dims.

    Raises:
        SippError: a dimension is negative, or the type unknown.
    """
    if any(dim < 0 for dim in tensor.dims):
        raise SippError(f"tensor {tensor.name!r} has negative dims {list(tensor.dims)}")
    dtype = numpy_dtype(tensor)
    bits = _PACKED_BITS.get(dtype.name, 8 * dtype.itemsize)
    return (prod(tensor.dims) * bits + 7) // 8


def is_external(tensor: TensorProto) -> bool:
    """Whether the elements lie in a file of their own."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def read_inline(tensor: TensorProto) -> NDArray[Any]:
    """Elements of a tensor whose data lies in the model itself.

    Raises:
        SippError: the payload does not fit type and dims.
    """
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise SippError(
            f"tensor {tensor.name!r} cannot be read: {error}; the file may be damaged"
        ) from error


def write_inline(tensor: TensorProto, values: NDArray[Any]) -> None:
    """Replace the elements in the same field; name, dims, type and all else stay.

    Args:
        tensor: changed in place.
        values: same shape as ``tensor.dims`` and of its numpy type.

    Raises:
        ValueError: shape or type differ.
    """
    if values.shape != tuple(tensor.dims) or values.dtype != numpy_dtype(tensor):
        raise ValueError(
            f"{tensor.name}: {values.dtype}{values.shape} for "
            f"{numpy_dtype(tensor)}{tuple(tensor.dims)}"
        )
    if tensor.HasField("raw_data"):
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        tensor.raw_data = np.ascontiguousarray(little).tobytes()
        return
    field = helper.tensor_dtype_to_field(tensor.data_type)
    flat = values.ravel()
    if tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        flat = flat.view(np.uint16)  # onnx.proto: their bit patterns lie in int32_data
    stored = getattr(tensor, field)
    del stored[:]
    stored.extend(flat.tolist())
