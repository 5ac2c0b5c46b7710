"""Arrays in .npy files and in members of .npz files, read piece by piece."""

from __future__ import annotations

__all__ = ["StreamRows", "open_npy", "open_npz", "reading"]

import lzma
import math
import re
import struct
import tokenize
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from onnx_sipp.calibration.rows import MemoryRows
from onnx_sipp.errors import SippError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from onnx_sipp.calibration.rows import Rows
    from onnx_sipp.calibration.specs import Array

# Enough that the cost of a call vanishes, too little to be seen beside a model.
_CHUNK_BYTES = 1 << 20
# What is compressed by more, as a mask of ones is, may not unpack to more than that.
_MOST_RATIO, _HARMLESS_BYTES = 200, 256 << 20

# Where Python keeps what an error names, which differs from run to run.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

_READ_ERRORS = (
    *(OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    # What numpy, which parses a header as Python, and zipfile make of bytes that are not theirs.
    *(ValueError, TypeError, KeyError, RuntimeError, OverflowError),
    *(SyntaxError, tokenize.TokenError, struct.error),
)


@dataclass(frozen=True)
class StreamRows:
    """Rows of an array in a file, of which only a piece is in memory at a time.

    A mapped file would do the same without a copy, but its pages count as memory of the process
    until the system wants them back, and a compressed member cannot be mapped. Only an array in
    column order, which has no rows to read one by one, is mapped or loaded while it is gone
    through.
    """

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    column_order: bool = False

    @property
    def where(self) -> str:
        """Where the array is, for messages."""
        return str(self.path)

    def blocks(self, rows: int) -> Iterator[Array]:
        """Read from the start, so many rows at a time; an incomplete last block is left out.

        Raises:
            SippError: If the file cannot be read or ends too early.
        """
        if self.column_order:
            yield from MemoryRows(_load(self.path, self.member), self.where).blocks(rows)
            return
        count = self.shape[0] // rows
        block_bytes = rows * math.prod(self.shape[1:]) * self.dtype.itemsize
        per_chunk = max(1, _CHUNK_BYTES // max(1, block_bytes))
        with _opened(self.path, self.member) as stream:
            if _read_header(stream, self.where)[::2] != (self.shape, self.dtype):
                raise SippError(f"{self.where}: changed while it was in use")
            for start in range(0, count, per_chunk):
                blocks = min(per_chunk, count - start)
                with reading(self.where):
                    data = _read(stream, blocks * block_bytes)
                chunk = np.ndarray((blocks, rows, *self.shape[1:]), self.dtype, data)
                yield from chunk


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn whatever a broken file causes while it is read into an error for people.

    Args:
        where: The file.

    Raises:
        SippError: In place of the cause.
    """
    try:
        yield
    except _READ_ERRORS as error:
        reason = _ADDRESS.sub("", str(error)) or type(error).__name__
        raise SippError(f"{where}: cannot be read: {reason}") from error


@contextmanager
def _opened(path: Path, member: str | None) -> Iterator[IO[bytes]]:
    """Open the bytes of an array, header and all."""
    if member is None:
        with reading(str(path)):
            stream: IO[bytes] = path.open("rb")
        with stream:
            yield stream
        return
    with reading(str(path)):
        archive = zipfile.ZipFile(path)
    with archive:
        with reading(str(path)):
            stream = archive.open(member)
        with stream:
            yield stream


def _read(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("it ends too early; it is truncated")
    return data


def _read_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with reading(where):
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream)
        # Version 3 exists for named fields, which no tensor has.
        raise ValueError(f"version {version} of the npy format is not supported")


def open_npy(path: Path) -> Rows:
    """Open a .npy file and check its header against its size.

    Raises:
        SippError: If it is no such file, is truncated, or holds pickled objects.
    """
    with reading(str(path)):
        _refuse_odd_file(path)
        size = path.stat().st_size
    return _open_array(path, None, size)


def open_npz(path: Path, names: Collection[str]) -> tuple[dict[str, Rows], list[str]]:
    """Open the arrays of a .npz file that bear these names.

    Args:
        path: The file.
        names: The names wanted; the other arrays are not looked into.

    Returns:
        The arrays found, and the names of all that the file has.

    Raises:
        SippError: If it is no such file, is damaged, or a wanted array holds pickled objects.
    """
    with reading(str(path)):
        _refuse_odd_file(path)
    with reading(str(path)), zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    members = {info.filename: info.file_size for info in infos}
    bombs = {info.filename for info in infos if _is_bomb(info)}
    present = {member.removesuffix(".npy"): member for member in members if member[-4:] == ".npy"}
    for name in names:
        if present.get(name) in bombs:
            raise SippError(
                f"{path}, {present[name]}: unpacks to {members[present[name]]:,} bytes, more than "
                f"{_MOST_RATIO} times what is stored: this is a bomb, or holds little but one "
                "value; if it is meant, store it without compression (numpy.savez)"
            )
    arrays = {
        name: _open_array(path, present[name], members[present[name]])
        for name in names
        if name in present
    }
    return arrays, list(present)


def _is_bomb(info: zipfile.ZipInfo) -> bool:
    return info.file_size > max(_HARMLESS_BYTES, _MOST_RATIO * info.compress_size)


def _refuse_odd_file(path: Path) -> None:
    """Refuse what might never end, or not even begin."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")


def _open_array(path: Path, member: str | None, size: int) -> Rows:
    where = str(path) if member is None else f"{path}, {member}"
    if size == 0:
        raise SippError(f"{where}: is empty")
    with _opened(path, member) as stream:
        shape, fortran_order, dtype = _read_header(stream, where)
        start = stream.tell()
    if dtype.hasobject:
        raise SippError(
            f"{where}: holds pickled Python objects, which are never loaded because they can run "
            "code: save a plain array of numbers"
        )
    claimed = start + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed != size:
        raise SippError(
            f"{where}: the header announces an array of shape {list(shape)} and {claimed} bytes "
            f"in all, but there are {size}: it is truncated or damaged"
        )
    if shape == ():
        return MemoryRows(np.array(_load(path, member)), str(path))
    return StreamRows(path, member, shape, dtype, fortran_order and len(shape) > 1)


def _load(path: Path, member: str | None) -> Array:
    """Load what cannot be read row by row: arrays in column order, and scalars."""
    with reading(str(path)):
        if member is None:
            mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
            return mapped
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            loaded: Array = np.lib.format.read_array(stream, allow_pickle=False)
            return loaded
