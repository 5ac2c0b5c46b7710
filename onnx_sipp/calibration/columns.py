"""The data of one input of a model, and how it is cut into feeds."""

from __future__ import annotations

__all__ = ["Column"]

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnx_sipp.calibration.checks import check_dtype, convert, shape_error
from onnx_sipp.calibration.rows import MemoryRows, Rows
from onnx_sipp.calibration.specs import Array, Dim, InputSpec, fits
from onnx_sipp.errors import SippError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# How an array becomes the values of one input: "rows" are slices that keep the leading axis as
# the batch, "whole" are slices that lose it, "shared" is one value for every feed.
_Layout = Literal["rows", "whole", "shared"]
_PIECE_BYTES = 1 << 18


@dataclass(frozen=True)
class Column:
    """The data of one input.

    Attributes:
        spec: The input.
        parts: Its array in each file, in order.
        layout: How slices become feeds.
        rows: How many rows a feed takes.
    """

    spec: InputSpec
    parts: tuple[Rows, ...]
    layout: _Layout
    rows: int

    @classmethod
    def lay_out(cls, spec: InputSpec, parts: Sequence[Rows]) -> Column:
        """Decide how arrays become feeds of one input, and check what can be without reading."""
        layouts = [_layout(part, spec) for part in parts]
        for part, layout in zip(parts, layouts, strict=True):
            if layout != layouts[0]:
                raise SippError(
                    f"{part.where}: input {spec.name!r} has {len(part.shape)} axes, but "
                    f"{len(parts[0].shape)} in {parts[0].where}: give all files the same layout"
                )
        rows = (spec.fixed_batch or 1) if layouts[0] == "rows" else 1
        return cls(spec, tuple(parts), layouts[0], rows)

    @property
    def samples(self) -> list[int]:
        """The number of rows in each file."""
        return [part.shape[0] for part in self.parts]

    @property
    def feeds(self) -> int | None:
        """The number of feeds there are data for; None where one value serves any number."""
        return None if self.layout == "shared" else sum(self.samples) // self.rows

    def arrays(self) -> Iterator[Array]:
        """Make the values of the feeds, one after the other."""
        if self.layout == "shared":
            return itertools.repeat(self._shared())
        if self.layout == "whole":
            return (block[0, ...] for part in self.parts for block in self._checked(part, 1))
        if self.rows == 1 or len(self.parts) == 1:
            return (block for part in self.parts for block in self._checked(part, self.rows))
        return self._regrouped()

    def _checked(self, part: Rows, rows: int) -> Iterator[Array]:
        if not isinstance(part, MemoryRows):
            for index, block in enumerate(part.blocks(rows)):
                yield convert(block, self.spec, part.where, index * rows)
            return
        size = rows * part.dtype.itemsize * math.prod(part.shape[1:])
        step = rows * max(1, _PIECE_BYTES // max(1, size))
        end = part.shape[0] // rows * rows
        for start in range(0, end, step):
            yield from self._converted(part, start, min(start + step, end), rows)

    def _converted(self, part: MemoryRows, start: int, stop: int, rows: int) -> Iterator[Array]:
        """Several blocks, at once unless one is refused, which may never be asked for."""
        places = range(start, stop, rows)
        try:
            piece = convert(part.array[start:stop], self.spec, part.where, start)
        except SippError:
            for place in places:
                block = part.array[place : place + rows]
                yield convert(block, self.spec, part.where, place)
        else:
            yield from (piece[place - start : place - start + rows] for place in places)

    def _regrouped(self) -> Iterator[Array]:
        """Fill batches across the borders of files."""
        single = (block for part in self.parts for block in self._checked(part, 1))
        while len(batch := list(itertools.islice(single, self.rows))) == self.rows:
            if len({row.shape for row in batch}) > 1:
                raise SippError(
                    f"{self.parts[0].where} and the files after it: input {self.spec.name!r} has "
                    "samples of different shapes, which cannot share a batch"
                )
            yield np.concatenate(batch)

    def _shared(self) -> Array:
        values = [np.asarray(part.array) for part in self.parts if isinstance(part, MemoryRows)]
        for part, value in zip(self.parts, values, strict=True):
            if value.tobytes() != values[0].tobytes():
                raise SippError(
                    f"{part.where}: input {self.spec.name!r} is another number than in "
                    f"{self.parts[0].where}: give one number per sample, as an array of one axis"
                )
        return convert(values[0], self.spec, self.parts[0].where)


def _layout(part: Rows, spec: InputSpec) -> _Layout:
    check_dtype(part.dtype, spec, part.where)
    dims, rank = spec.shape, len(part.shape)
    if rank == 0 and not dims:
        return "shared"
    layout: _Layout = "rows"
    wanted: tuple[Dim, ...] | None = None
    if dims is not None and (rank == len(dims) + 1 or dims[:1] == (0,)):
        layout, wanted = "whole", ("samples", *dims)
    elif dims is not None:
        wanted = ("samples", *dims[1:])
    if not fits(part.shape, wanted):
        raise shape_error(part.shape, spec, wanted or (), part.where)
    if part.shape[0] == 0:
        raise SippError(f"{part.where}: input {spec.name!r} has shape {part.shape}: no samples")
    return layout
