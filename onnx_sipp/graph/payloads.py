"""New elements of constants that lie in external files: in memory, or in files of a store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.tensors import is_whole_bytes, packed_bytes
from onnx_sipp.slabs import ranges
from onnx_sipp.store import ArrayFile, Kept, TensorStore, load

__all__ = ["COPY_BYTES", "Replacements"]

# Of a file that is copied, in memory at a time.
COPY_BYTES = 1 << 22


class Replacements:
    """What stands in place of external payloads, by site.

    Args:
        store: where it is kept; None for memory.
    """

    def __init__(self, store: TensorStore | None = None) -> None:
        self._store = store
        self._kept: dict[int, Kept] = {}
        self._own: set[int] = set()  # may be changed in place: nobody else has them

    def copy(self, store: TensorStore | None) -> Replacements:
        """An independent copy, which keeps what is new in another store."""
        result = Replacements(store or self._store)
        result._kept = dict(self._kept)
        self._own.clear()
        return result

    def __contains__(self, site: int) -> bool:
        return site in self._kept

    def __iter__(self) -> Iterator[int]:
        return iter(self._kept)

    def read(self, site: int) -> NDArray[Any]:
        """All elements; mapped if they are in a file."""
        kept = self._kept[site]
        return kept.mapped() if isinstance(kept, ArrayFile) else kept

    def slab(self, site: int, axis: int, rows: slice) -> NDArray[Any]:
        """A range of the elements along one axis."""
        kept = self._kept[site]
        if isinstance(kept, ArrayFile):
            return kept.slab(axis, rows)
        return kept[(slice(None),) * axis + (rows,)]

    def kept(self, site: int) -> Kept:
        """All elements where they are; they change with later ranges that are put here."""
        return self._kept[site]

    def released(self, site: int) -> Kept:
        """All elements where they are, never to be changed any more."""
        self._own.discard(site)
        return self._kept[site]

    def share(self, site: int, kept: Kept) -> None:
        """Replace all elements by what is kept already."""
        self._kept[site] = kept
        self._own.discard(site)

    def put(self, site: int, values: NDArray[Any]) -> None:
        """Replace all elements.

        Raises:
            SippError: they cannot be kept.
        """
        self._kept[site] = values if self._store is None else self._store.keep(values)
        self._own.discard(site)  # in memory they are the caller's

    def put_slab(
        self,
        site: int,
        axis: int,
        start: int,
        values: NDArray[Any],
        shape: tuple[int, ...],
        before: Callable[[slice], NDArray[Any]],
    ) -> None:
        """Replace a range of the elements along one axis.

        Args:
            site: of the constant.
            axis: that the range is taken of.
            start: of the range.
            values: new elements.
            shape: of the constant.
            before: reads a range of the present elements along the leading axis.

        Raises:
            SippError: they cannot be kept.
        """
        if site not in self._own:
            row_bytes = values.itemsize * prod(shape[1:])
            pieces = (before(rows) for rows in ranges(shape[0], row_bytes))
            if self._store is None:
                self._kept[site] = np.concatenate(list(pieces))
            else:
                self._kept[site] = self._store.file_of(pieces, shape, values.dtype)
            self._own.add(site)
        kept = self._kept[site]
        if isinstance(kept, ArrayFile):
            assert self._store is not None
            self._store.write(kept, axis, start, values)
        else:
            kept[(slice(None),) * axis + (slice(start, start + values.shape[axis]),)] = values

    def write_to(self, site: int, out: BinaryIO) -> None:
        """Write all elements to a stream."""
        kept = self._kept[site]
        if isinstance(kept, ArrayFile) and is_whole_bytes(kept.dtype):
            with kept.path.open("rb") as source:
                shutil.copyfileobj(source, out, COPY_BYTES)
        else:
            out.write(packed_bytes(load(kept)))
