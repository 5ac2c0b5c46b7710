"""Arrays that wait for their turn: in memory up to a limit, beyond it in files.

Files are read and written, not mapped: mapped pages would count as the process's memory.
"""

from __future__ import annotations

import itertools
import tempfile
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.errors import SippError
from onnx_sipp.slabs import as_bytes, ranges, read_slab, write_slab

__all__ = [
    "DEFAULT_LIMIT",
    "ArrayFile",
    "Held",
    "Kept",
    "LiveTensors",
    "TensorStore",
    "load",
]

Tensor = NDArray[Any]

DEFAULT_LIMIT = 4 << 20


class ArrayFile:
    """An array in a file of its own, which goes when the last reference to it does.

    Args:
        folder: temporary one that the file is made in; it lasts as long as its files.
        name: of the file.
        shape: of the array.
        dtype: of its elements.
    """

    def __init__(
        self,
        folder: tempfile.TemporaryDirectory[str],
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        self.path, self.shape, self.dtype = Path(folder.name) / name, shape, dtype
        self._folder = folder
        self._remove = weakref.finalize(self, self.path.unlink, missing_ok=True)

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def load(self) -> Tensor:
        """The whole array."""
        return np.fromfile(self.path, self.dtype).reshape(self.shape)

    def mapped(self) -> Tensor:
        """The whole array, mapped read-only."""
        if self.nbytes == 0:
            return self.load()
        return np.memmap(self.path, self.dtype, "r", shape=self.shape)

    def slab(self, axis: int, rows: slice) -> Tensor:
        """A range of the array along one axis."""
        with self.path.open("rb") as stream:
            return read_slab(stream, 0, self.shape, self.dtype, axis, rows)

    def write(self, axis: int, start: int, values: Tensor) -> None:
        """Replace a range of the array along one axis.

        Raises:
            OSError: writing fails.
        """
        with self.path.open("r+b") as stream:
            write_slab(stream, self.shape, axis, start, values)

    def close(self) -> None:
        """Remove the file now."""
        self._remove()


Kept = Tensor | ArrayFile


def load(kept: Kept) -> Tensor:
    """The whole of what a store keeps."""
    return kept.load() if isinstance(kept, ArrayFile) else kept


class TensorStore:
    """Keeps arrays, within one limit.

    Args:
        limit: bytes to hold in memory.
        folder: where files go, None for the system's temporary folder. The store makes a folder
            of its own inside; it goes with the store and the last of its files.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT, folder: Path | None = None) -> None:
        self._limit, self._used = limit, 0
        self._lock = Lock()  # several threads may keep arrays
        self._folder = folder
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._numbers = itertools.count()

    @property
    def folder(self) -> Path:
        """Where files go."""
        return self._folder or Path(tempfile.gettempdir())

    def keep(self, value: Tensor) -> Kept:
        """Take an array in.

        Raises:
            SippError: it does not fit into memory, and the file cannot be written.
        """
        size = _size(value)
        with self._lock:
            if size is None or self._used + size <= self._limit:
                self._used += size or 0
                return value
        return self.file_of(_pieces(value), value.shape, value.dtype)

    def file_of(
        self, pieces: Iterable[Tensor], shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> ArrayFile:
        """Take an array in that comes piece by piece along its leading axis, into a file.

        Raises:
            SippError: the file cannot be written.
        """
        try:
            file = self._file(shape, dtype)
            with file.path.open("wb") as out:
                for piece in pieces:
                    out.write(as_bytes(piece))
        except OSError as error:
            raise self._failure(error) from error
        return file

    def write(self, file: ArrayFile, axis: int, start: int, values: Tensor) -> None:
        """Replace a range of an array in a file along one axis.

        Raises:
            SippError: the file cannot be written.
        """
        try:
            file.write(axis, start, values)
        except OSError as error:
            raise self._failure(error) from error

    def drop(self, kept: Kept) -> None:
        """Forget an array."""
        if isinstance(kept, ArrayFile):
            kept.close()
        else:
            with self._lock:
                self._used -= _size(kept) or 0

    def _file(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> ArrayFile:
        with self._lock:
            if self._own is None:
                self._own = tempfile.TemporaryDirectory(prefix="onnx-sipp-", dir=self._folder)
        return ArrayFile(self._own, str(next(self._numbers)), shape, dtype)

    def _failure(self, error: OSError) -> SippError:
        return SippError(
            f"cannot keep intermediate data in {self.folder}: {error.strerror}; name a folder "
            "with space by --workdir, or use fewer samples"
        )


def _pieces(value: Tensor) -> Iterator[Tensor]:
    """The rows of an array, some at a time: to be written, they may have to be copied."""
    if value.ndim == 0 or value.size == 0:
        yield value
        return
    for rows in ranges(len(value), value.nbytes // len(value)):
        yield value[rows]


def _size(value: Any) -> int | None:
    """Bytes of a tensor; None for what no file can hold: sequences, strings, empty optionals."""
    return value.nbytes if isinstance(value, np.ndarray) and not value.dtype.hasobject else None


class Held:
    """Arrays that would take a while to make again, as long as there is room; none is changed.

    Args:
        limit: of their bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._arrays: dict[Hashable, dict[Hashable, NDArray[Any]]] = {}

    def copy(self) -> Held:
        """The same arrays, to forget others."""
        result = Held(self._limit)
        result._arrays = {owner: dict(own) for owner, own in self._arrays.items()}
        return result

    def get(self, owner: Hashable, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """An array that belongs to an owner; made if it is not held, and held if there is room."""
        own = self._arrays.get(owner, {})
        if key in own:
            return own[key]
        made = make()
        made.setflags(write=False)
        held = sum(array.nbytes for all_ in [*self._arrays.values()] for array in [*all_.values()])
        if held + made.nbytes <= self._limit:
            self._arrays.setdefault(owner, {})[key] = made
        return made

    def forget(self, owner: Hashable) -> None:
        """Let go of what belongs to an owner: it has changed."""
        self._arrays.pop(owner, None)


class LiveTensors(Mapping[str, Tensor]):
    """The tensors of one batch that are alive, by name; each look-up may read a file.

    Args:
        store: that holds them.
    """

    def __init__(self, store: TensorStore) -> None:
        self._store = store
        self._kept: dict[str, Kept] = {}

    def __getitem__(self, name: str) -> Tensor:
        return load(self._kept[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return self._kept[name].shape

    def add(self, name: str, value: Tensor) -> None:
        """Keep a tensor under a name."""
        self._kept[name] = self._store.keep(value)

    def remove(self, name: str) -> None:
        """Forget a tensor, if it is there."""
        if name in self._kept:
            self._store.drop(self._kept.pop(name))
