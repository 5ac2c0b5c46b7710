"""In which type the kept elements are stored."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnx_sipp.packing.codes import usual_element

__all__ = ["Stored", "as_stored", "relative_error"]

_STORABLE = {np.dtype(kind) for kind in ("f4", "f2", "f8", "i1", "u1")}
_LEVELS = 127


@dataclass(frozen=True)
class Stored:
    """A tensor as it will be stored, and how to get it back.

    Attributes:
        elements: flat, in the type that is stored.
        shape: of the tensor.
        data_type: of the tensor, ONNX's number.
        casts: whether the stored type is another one.
        scale: what the elements are multiplied by, None if nothing. Its shape fits the tensor's.
    """

    elements: NDArray[Any]
    shape: tuple[int, ...]
    data_type: int
    casts: bool = False
    scale: NDArray[np.float32] | None = None

    @property
    def size(self) -> int:
        """Elements."""
        return prod(self.shape)

    @property
    def usual(self) -> NDArray[Any]:
        """The element that is left out, ``[1]``."""
        return usual_element(self.elements)

    @property
    def computed_type(self) -> int:
        """Type that stored elements are cast to: products are float32, whatever the tensor is."""
        return self.data_type if self.scale is None else int(TensorProto.FLOAT)


def as_stored(tensor: NDArray[Any], values: str) -> Stored | None:
    """Convert a tensor to the type that is stored.

    Args:
        tensor: any.
        values: ``exact``, ``fp16`` or ``int8``; the latter two are for floating point and finite
            elements, other tensors stay exact.

    Returns:
        None if its type cannot be packed.
    """
    if tensor.dtype not in _STORABLE:
        return None
    exact = Stored(
        np.ascontiguousarray(tensor).reshape(-1),
        tensor.shape,
        helper.np_dtype_to_tensor_dtype(tensor.dtype),
    )
    if values == "exact" or tensor.dtype.kind != "f" or not np.isfinite(tensor).all():
        return exact
    if values == "int8":
        return _as_int8(exact, tensor)
    with np.errstate(over="ignore"):
        halves = exact.elements.astype(np.float16)
    if tensor.dtype.itemsize <= 2 or not np.isfinite(halves).all():
        return exact
    return Stored(halves, exact.shape, exact.data_type, casts=True)


def _as_int8(exact: Stored, tensor: NDArray[Any]) -> Stored:
    """Levels with a scale per slice along the axis that loses least, the first or the last one."""
    best, least = exact, np.inf
    for axis in dict.fromkeys((0, tensor.ndim - 1)) if tensor.ndim else ():
        others = tuple(other for other in range(tensor.ndim) if other != axis)
        largest = np.abs(tensor).max(axis=others, keepdims=True).astype(np.float64)
        scale = (largest / _LEVELS).astype(np.float32)
        scale[scale == 0] = 1
        if not np.isfinite(scale).all():
            continue
        levels = np.clip(np.rint(tensor.astype(np.float64) / scale), -_LEVELS, _LEVELS)
        error = float(np.square(levels * scale - tensor).sum())
        if error < least:
            stored = levels.astype(np.int8).reshape(-1)
            best, least = Stored(stored, exact.shape, exact.data_type, True, scale), error
    return best


def relative_error(rebuilt: NDArray[Any], original: NDArray[Any]) -> float:
    """‖rebuilt − original‖ / ‖original‖, 0 if every bit is the same."""
    if rebuilt.tobytes() == original.tobytes():
        return 0.0
    before = original.astype(np.float64)
    power = float(np.linalg.norm(before))
    error = float(np.linalg.norm(rebuilt.astype(np.float64) - before))
    return error / power if power else np.inf
