"""Slabs of arrays that lie in files: a range along one axis, without the rest in memory."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_bytes", "ranges", "read_slab", "write_slab"]

_PIECE_BYTES = 1 << 22


def ranges(length: int, size: int, limit: int = _PIECE_BYTES) -> Iterator[slice]:
    """Part an axis into ranges of one row at least.

    Args:
        length: of the axis.
        size: of a row, in bytes or in what the limit counts.
        limit: of a range.
    """
    step = max(1, limit // max(1, size))
    for start in range(0, length, step):
        yield slice(start, min(length, start + step))


def read_slab(
    stream: BinaryIO,
    offset: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    axis: int,
    rows: slice,
) -> NDArray[Any]:
    """Read ``array[..., rows, ...]`` of an array in row-major order.

    Args:
        stream: of the file.
        offset: first byte of the array.
        shape: of the whole array.
        dtype: of its elements.
        axis: that the range is taken of.
        rows: start and stop, within the axis.

    Raises:
        OSError: reading fails, or the file ends early.
    """
    result = np.empty((*shape[:axis], rows.stop - rows.start, *shape[axis + 1 :]), dtype)
    view = as_bytes(result)
    size = 0
    for place, length in _runs(offset, shape, dtype.itemsize, axis, rows):
        stream.seek(place)
        if stream.readinto(view[size : size + length]) != length:  # type: ignore[attr-defined]
            raise OSError(None, "the file ends early")
        size += length
    return result


def write_slab(
    stream: BinaryIO, shape: tuple[int, ...], axis: int, start: int, values: NDArray[Any]
) -> None:
    """Write ``array[..., start : start + n, ...] = values`` of an array that fills a file.

    Args:
        stream: of the file.
        shape: of the whole array.
        axis: that the range is taken of.
        start: of the range.
        values: in the type of the array, ``n`` along the axis.

    Raises:
        OSError: writing fails.
    """
    view = as_bytes(values)
    rows = slice(start, start + values.shape[axis])
    size = 0
    for place, length in _runs(0, shape, values.dtype.itemsize, axis, rows):
        stream.seek(place)
        stream.write(view[size : size + length])
        size += length


def as_bytes(values: NDArray[Any]) -> memoryview:
    """The bytes of an array in row-major order; not copied if they lie so."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return memoryview(flat.view(np.uint8).data)


def _runs(
    offset: int, shape: tuple[int, ...], itemsize: int, axis: int, rows: slice
) -> Iterator[tuple[int, int]]:
    """Places and lengths of the connected bytes of a range."""
    inner = itemsize * prod(shape[axis + 1 :])
    length = inner * (rows.stop - rows.start)
    for block in range(prod(shape[:axis]) if length else 0):
        yield offset + inner * (block * shape[axis] + rows.start), length
