"""Tensors that wait for their turn: in memory up to a limit, beyond it in files.

Files are read and written, not mapped: mapped pages would count as the process's memory.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.errors import SippError

__all__ = ["DEFAULT_LIMIT", "LiveTensors", "TensorStore"]

Tensor = NDArray[Any]

DEFAULT_LIMIT = 4 << 20


@dataclass(frozen=True)
class _OnDisk:
    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class TensorStore:
    """Keeps tensors of all batches, within one limit.

    Args:
        limit: bytes to hold in memory.
        folder: where files go, None for the system's temporary folder. The store makes a folder
            of its own inside, and removes it at the end.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT, folder: Path | None = None) -> None:
        self._limit, self._used = limit, 0
        self._folder = folder
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._numbers = itertools.count()

    def keep(self, value: Tensor) -> Tensor | _OnDisk:
        """Take a tensor in.

        Raises:
            SippError: it does not fit into memory, and the file cannot be written.
        """
        size = _size(value)
        if size is None or self._used + size <= self._limit:
            self._used += size or 0
            return value
        try:
            if self._own is None:
                self._own = tempfile.TemporaryDirectory(prefix="onnx-sipp-", dir=self._folder)
            path = Path(self._own.name) / str(next(self._numbers))
            np.ascontiguousarray(value).tofile(path)
        except OSError as error:
            raise SippError(
                f"cannot keep activations in {self._folder or tempfile.gettempdir()}: "
                f"{error.strerror}; name a folder with space by --workdir, use fewer samples, or "
                "raise --memory-limit"
            ) from error
        return _OnDisk(path, value.dtype, value.shape)

    @staticmethod
    def load(kept: Tensor | _OnDisk) -> Tensor:
        """Give a tensor back; it stays in the store."""
        if isinstance(kept, _OnDisk):
            return np.fromfile(kept.path, kept.dtype).reshape(kept.shape)
        return kept

    def drop(self, kept: Tensor | _OnDisk) -> None:
        """Forget a tensor."""
        if isinstance(kept, _OnDisk):
            kept.path.unlink(missing_ok=True)
        else:
            self._used -= _size(kept) or 0


def _size(value: Any) -> int | None:
    """Bytes of a tensor; None for what no file can hold: sequences, strings, empty optionals."""
    return value.nbytes if isinstance(value, np.ndarray) and not value.dtype.hasobject else None


class LiveTensors(Mapping[str, Tensor]):
    """The tensors of one batch that are alive, by name; each look-up may read a file.

    Args:
        store: that holds them.
    """

    def __init__(self, store: TensorStore) -> None:
        self._store = store
        self._kept: dict[str, Tensor | _OnDisk] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self._store.load(self._kept[name])

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
