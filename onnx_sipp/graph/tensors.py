"""Payloads of TensorProto: read them, and write them back to the field they came from."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from onnx_sipp.errors import SippError

__all__ = [
    "FLOAT_TYPES",
    "is_external",
    "is_float",
    "is_parameter",
    "is_whole_bytes",
    "numpy_dtype",
    "packed_bytes",
    "payload_bytes",
    "read_inline",
    "read_numbers",
    "read_packed",
    "write_inline",
    "write_numbers",
]

FLOAT_TYPES = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
)
_NARROW = frozenset(
    {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4}
    | {value for name, value in TensorProto.DataType.items() if name.startswith("FLOAT8")}
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


def is_parameter(holder: TensorProto | AttributeProto) -> bool:
    """Whether a constant is floating point, or narrow integers as quantised weights are."""
    if isinstance(holder, AttributeProto):
        return holder.name.startswith("value_float")
    return holder.data_type in FLOAT_TYPES or holder.data_type in _NARROW


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a type is one of `FLOAT_TYPES`."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


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
        tensor.raw_data = packed_bytes(values)
        return
    field = helper.tensor_dtype_to_field(tensor.data_type)
    if values.dtype.name in _PACKED_BITS:  # onnx.proto: a byte with two elements in each int32
        flat: NDArray[Any] = np.frombuffer(packed_bytes(values), np.uint8)
    else:
        flat = values.ravel()
    if tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        flat = flat.view(np.uint16)  # onnx.proto: their bit patterns lie in int32_data
    stored = getattr(tensor, field)
    del stored[:]
    stored.extend(flat.tolist())


def is_whole_bytes(dtype: np.dtype[Any]) -> bool:
    """Whether every element has bytes of its own, in a file as in memory."""
    return dtype.name not in _PACKED_BITS


def packed_bytes(values: NDArray[Any]) -> bytes:
    """The bytes of elements as ``raw_data`` has them: little-endian, narrow types packed."""
    if values.dtype.name in _PACKED_BITS:
        return bytes(numpy_helper.from_array(np.ascontiguousarray(values)).raw_data)
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little).tobytes()


def read_packed(tensor: TensorProto, raw: NDArray[np.uint8]) -> NDArray[Any]:
    """Elements of a tensor whose bytes lie elsewhere; not copied unless they must be unpacked."""
    dtype = numpy_dtype(tensor)
    if dtype.name not in _PACKED_BITS:
        return raw.view(dtype).reshape(tensor.dims)
    alone = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=raw.tobytes())
    return read_inline(alone)


def read_numbers(attribute: AttributeProto) -> NDArray[Any]:
    """Elements of a Constant node's ``value_float``, ``value_floats``, ``value_int(s)``."""
    numbers = helper.get_attribute_value(attribute)
    dtype = np.float32 if attribute.name.startswith("value_float") else np.int64
    return np.asarray(numbers, dtype)


def write_numbers(attribute: AttributeProto, values: NDArray[Any]) -> None:
    """Replace the elements of such an attribute.

    Args:
        attribute: changed in place.
        values: as `read_numbers` gives them.

    Raises:
        ValueError: the shape differs.
    """
    old = read_numbers(attribute)
    if values.shape != old.shape:
        raise ValueError(f"{attribute.name}: {values.shape} for {old.shape}")
    field = {"value_float": "f", "value_floats": "floats", "value_int": "i", "value_ints": "ints"}
    where = field[attribute.name]
    if values.ndim == 0:
        setattr(attribute, where, values.item())
    else:
        del getattr(attribute, where)[:]
        getattr(attribute, where).extend(values.tolist())
