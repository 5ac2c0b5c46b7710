"""A header and arrays in one ``.npz`` file: written whole or not at all, read with care.

Nothing is pickled, and no array is read before its size is known to be the expected one.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from onnx_sipp.calibration.npy_stream import open_npz
from onnx_sipp.calibration.rows import MemoryRows, Rows
from onnx_sipp.errors import SippError
from onnx_sipp.files import write_together
from onnx_sipp.slabs import as_bytes

__all__ = ["Archive", "Member", "understanding", "write_archive", "write_members"]

Array = NDArray[Any]

_HEADER = "header"
_MOST_HEADER_BYTES = 64 << 20


@dataclass(frozen=True)
class Member:
    """An array that comes piece by piece along its leading axis.

    Attributes:
        name: in the archive.
        shape: of the array.
        dtype: of its elements.
        pieces: of it, in order.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pieces: Iterable[Array]

    @classmethod
    def of(cls, name: str, value: Array) -> Member:
        """An array that is there."""
        return cls(name, value.shape, value.dtype, [value])


def write_archive(path: Path, header: Mapping[str, Any], members: Iterable[Member]) -> None:
    """Write an archive; the same content gives the same bytes.

    Args:
        path: of the file, which is replaced.
        header: plain data, as JSON has it, infinities and NaN too.
        members: gone through once, while the file is written.

    Raises:
        SippError: writing failed; nothing is left behind.
    """
    text = json.dumps(header, ensure_ascii=False).encode()
    first = Member.of(_HEADER, np.frombuffer(text, np.uint8))
    write_together([(path, partial(write_members, chain([first], members)))])


def write_members(
    members: Iterable[Member], out: BinaryIO, compression: int = zipfile.ZIP_STORED
) -> None:
    """Write arrays as an ``.npz`` file, one at a time; the same arrays give the same bytes.

    `numpy.savez` takes them as keywords and whole; names may be none, and arrays come in pieces.

    Args:
        members: the arrays.
        out: where they are written.
        compression: of `zipfile`.
    """
    with zipfile.ZipFile(out, "w", compression) as archive:
        for member in members:
            entry = zipfile.ZipInfo(f"{member.name}.npy")
            entry.compress_type = compression
            with archive.open(entry, "w", force_zip64=True) as stream:
                told = {
                    "descr": np.lib.format.dtype_to_descr(member.dtype),
                    "fortran_order": False,
                    "shape": member.shape,
                }
                np.lib.format.write_array_header_1_0(stream, told)
                for piece in member.pieces:
                    stream.write(as_bytes(np.ascontiguousarray(piece)))


class Archive:
    """An archive to read from.

    Args:
        path: of the file.
        form: what its header has to say that it is.

    Attributes:
        header: plain data.

    Raises:
        SippError: there is no such file, or it is damaged or something else.
    """

    def __init__(self, path: Path, form: str) -> None:
        self.path = path
        rows = self._rows(_HEADER)
        if rows is None or rows.dtype != np.uint8 or len(rows.shape) != 1:
            raise self._odd(form)
        size = rows.shape[0]
        if not 0 < size <= _MOST_HEADER_BYTES:
            raise self._odd(form)
        try:
            header = json.loads(next(rows.blocks(size)).tobytes())
        except (ValueError, RecursionError) as error:
            raise self._odd(form) from error
        if not isinstance(header, dict) or header.get("form") != form:
            raise self._odd(form)
        self.header: dict[str, Any] = header

    def read(self, name: str, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """An array.

        Args:
            name: of the array.
            shape: that it has to have.
            dtype: likewise.

        Raises:
            SippError: it is missing, another one, or damaged.
        """
        if not shape or 0 in shape:
            rows = self._expected(name, shape, dtype)
            return rows.array if isinstance(rows, MemoryRows) else np.zeros(shape, dtype)
        (whole,) = self.parts(name, shape, dtype, [shape[0]])
        return whole

    def parts(
        self, name: str, shape: Sequence[int], dtype: DTypeLike, counts: Sequence[int]
    ) -> Iterator[Array]:
        """An array in parts of so many rows each, along its leading axis; see `read`."""
        rows = self._expected(name, shape, dtype)
        if list(counts) == [shape[0]]:
            yield next(rows.blocks(shape[0]))
            return
        single = rows.blocks(1)
        for count in counts:
            yield np.concatenate(list(islice(single, count)))

    def _expected(self, name: str, shape: Sequence[int], dtype: DTypeLike) -> Rows:
        rows = self._rows(name)
        if rows is None or rows.shape != tuple(shape) or rows.dtype != np.dtype(dtype):
            raise SippError(f"{self.path}: lacks the array {name!r}, or it is another one")
        return rows

    def _rows(self, name: str) -> Rows | None:
        return open_npz(self.path, [name])[0].get(name)

    def _odd(self, form: str) -> SippError:
        return SippError(f"{self.path}: holds no {form}, or is damaged; make it anew")


@contextmanager
def understanding(path: Path) -> Iterator[None]:
    """Turn what a header with other things in it causes into an error for people.

    Args:
        path: of the archive.

    Raises:
        SippError: in place of the cause.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        told = f"{type(error).__name__}: {error}"
        raise SippError(f"{path}: says something odd ({told}); make it anew") from error
