"""External tensor data: where it may lie and how it is read."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnx_sipp.errors import SippError
from onnx_sipp.graph.tensors import numpy_dtype, payload_bytes
from onnx_sipp.slabs import read_slab

__all__ = [
    "ExternalReference",
    "checked_file",
    "external_reference",
    "open_checked",
    "read_bytes",
    "read_external_slab",
]


@dataclass(frozen=True)
class ExternalReference:
    """The bytes of a tensor in a file beside the model.

    Attributes:
        location: path relative to the model's folder, as written in the model.
        offset: first byte.
        length: number of bytes, None if the rest of the file.
    """

    location: str
    offset: int
    length: int | None


def external_reference(tensor: TensorProto) -> ExternalReference:
    """Read where a tensor with ``data_location: EXTERNAL`` keeps its bytes.

    Raises:
        SippError: the reference has no location, or an offset or length that is no natural number.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if not entries.get("location"):
        raise SippError(f"tensor {tensor.name!r} is external but names no file")
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else None
    except ValueError as error:
        raise SippError(
            f"tensor {tensor.name!r}: its external offset or length is no number ({error})"
        ) from error
    if offset < 0 or (length is not None and length < 0):
        raise SippError(f"tensor {tensor.name!r}: its external offset or length is negative")
    return ExternalReference(entries["location"], offset, length)


def checked_file(location: str, folder: Path) -> Path:
    """Resolve a location inside the model's folder, following no link.

    Raises:
        SippError: the location is absolute, climbs out by ``..``, is or passes through a symbolic
            link, has several hard links, or is no regular file. Any of these could make the tool
            read or copy a file that the model's author has no right to.
    """
    parts = PurePosixPath(location).parts
    if PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive:
        raise SippError(f"external data {location!r} is an absolute path; {_MEND}")
    if ".." in parts or ".." in PureWindowsPath(location).parts:
        raise SippError(f"external data {location!r} leaves the model's folder; {_MEND}")
    path = folder
    try:
        for part in parts:
            path = path / part
            if path.is_symlink():
                raise SippError(
                    f"external data {location!r}: {path.name!r} is a symbolic link; {_MEND}"
                )
        if not path.exists():
            raise SippError(
                f"external data file {location!r} is missing in {folder}; "
                "copy it there: a model and its data files belong together"
            )
        _refuse_odd_file(path.lstat(), location)
    except OSError as error:  # such as a name that is too long
        raise SippError(f"cannot open external data {location!r}: {error.strerror}") from error
    return path


_MEND = "only plain files inside the model's folder are read (re-save the model with its data)"


def _refuse_odd_file(status: os.stat_result, location: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SippError(f"external data {location!r} is no regular file; {_MEND}")
    if status.st_nlink > 1:
        raise SippError(f"external data {location!r} has several hard links; {_MEND}")


def open_checked(location: str, folder: Path) -> BinaryIO:
    """Open an external data file without following links, checked again on the descriptor.

    Raises:
        SippError: as `checked_file`.
    """
    path = checked_file(location, folder)
    try:
        descriptor = _descriptor(path, folder)
    except OSError as error:
        raise SippError(f"cannot open external data {location!r}: {error.strerror}") from error
    stream = os.fdopen(descriptor, "rb")
    try:
        _refuse_odd_file(os.fstat(descriptor), location)
    except SippError:
        stream.close()
        raise
    return stream


_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
_FILE = os.O_RDONLY | _NO_LINK | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def _descriptor(path: Path, folder: Path) -> int:
    """Open a file in a folder, each component from the one before it, so that none can be swapped.

    Raises:
        OSError: it cannot be opened, or a link has come to stand there since it was checked.
    """
    if os.open not in os.supports_dir_fd:  # Windows
        return os.open(path, _FILE)
    *folders, name = path.relative_to(folder).parts
    place = os.open(folder, _FOLDER)
    try:
        for part in folders:
            inner = os.open(part, _FOLDER | _NO_LINK, dir_fd=place)
            os.close(place)
            place = inner
        return os.open(name, _FILE, dir_fd=place)
    finally:
        os.close(place)


def read_bytes(reference: ExternalReference, folder: Path, expected: int) -> NDArray[np.uint8]:
    """Map the bytes of an external tensor into memory, read-only.

    Args:
        reference: of the tensor.
        folder: of the model.
        expected: number of bytes that the tensor's type and dims need.

    Raises:
        SippError: as `checked_file`, or the file is too short, or the length does not fit.
    """
    with open_checked(reference.location, folder) as stream:
        _refuse_short(stream, reference, expected)
        if expected == 0:
            return np.zeros(0, np.uint8)
        return np.memmap(
            stream, dtype=np.uint8, mode="r", offset=reference.offset, shape=(expected,)
        )


def read_external_slab(tensor: TensorProto, folder: Path, axis: int, rows: slice) -> NDArray[Any]:
    """Read a range of an external tensor along one axis, and nothing else.

    Args:
        tensor: of a type whose elements are whole bytes.
        folder: of the model.
        axis: that the range is taken of.
        rows: start and stop.

    Raises:
        SippError: as `read_bytes`.
    """
    reference = external_reference(tensor)
    with open_checked(reference.location, folder) as stream:
        _refuse_short(stream, reference, payload_bytes(tensor))
        shape, dtype = tuple(tensor.dims), numpy_dtype(tensor)
        try:
            return read_slab(stream, reference.offset, shape, dtype, axis, rows)
        except OSError as error:
            reason = error.strerror or error
            raise SippError(
                f"cannot read external data {reference.location!r}: {reason}"
            ) from error


def _refuse_short(stream: BinaryIO, reference: ExternalReference, expected: int) -> None:
    size = os.fstat(stream.fileno()).st_size
    length = size - reference.offset if reference.length is None else reference.length
    if length < expected or reference.offset + max(length, expected) > size:
        raise SippError(
            f"external data {reference.location!r} is too short: {expected} bytes are needed "
            f"from byte {reference.offset} on, {length} are said to be there, the file has {size}"
        )
