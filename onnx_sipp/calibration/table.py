"""Calibration data as arrays whose leading axis counts the samples."""

from __future__ import annotations

__all__ = ["TableSource"]

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnx_sipp.calibration.checks import check_dtype, convert, shape_error
from onnx_sipp.calibration.rows import MemoryRows, Rows
from onnx_sipp.calibration.specs import Array, Dim, Feed, InputSpec, fits
from onnx_sipp.errors import SippError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# How an array becomes the values of one input: "rows" are slices that keep the leading axis as
# the batch, "whole" are slices that lose it, "shared" is one value for every feed.
_Layout = Literal["rows", "whole", "shared"]


class TableSource:
    """Feeds cut out of arrays, which may be spread over several files.

    Nothing but the feed that is being made (and a small piece of each file) is in memory.

    Attributes:
        description: What the data is, for people.
        synthetic: Always False.
        notes: What the user must be told.
    """

    synthetic = False

    def __init__(
        self,
        label: str,
        files: Sequence[Mapping[str, Rows]],
        specs: Sequence[InputSpec],
        num_samples: int | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Lay out and check the data, all values included.

        Args:
            label: The name of the data, for people.
            files: The arrays of each file by input name; every input must be there.
            specs: The inputs of the model.
            num_samples: The most feeds to make.
            notes: What was noticed on the way here.

        Raises:
            SippError: If a type, a shape, a number of samples or a value is wrong.
        """
        self._columns = [
            _Column.lay_out(spec, [arrays[spec.name] for arrays in files]) for spec in specs
        ]
        _check_counts(self._columns)
        available = min((c.feeds for c in self._columns if c.feeds is not None), default=1)
        if available == 0:
            raise _too_few(self._columns)
        self._count = min(available, num_samples or available)
        batch = max(column.rows for column in self._columns)
        self.description = f"{label} ({_amount(self._count, available, batch)})"
        self.notes = (*notes, *(_left_over(self._columns) if self._count == available else ()))
        for _ in self:  # every value that will be fed is checked before anything is run
            pass

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Feed]:
        names = [column.spec.name for column in self._columns]
        streams = [column.arrays() for column in self._columns]
        for values in itertools.islice(zip(*streams, strict=False), self._count):
            yield dict(zip(names, values, strict=True))


@dataclass(frozen=True)
class _Column:
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
    def lay_out(cls, spec: InputSpec, parts: Sequence[Rows]) -> _Column:
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
        for index, block in enumerate(part.blocks(rows)):
            yield convert(block, self.spec, part.where, index * rows)

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


def _check_counts(columns: Sequence[_Column]) -> None:
    """Check that every input has data for the same feeds, in each file."""
    counted = [column for column in columns if column.layout != "shared"]
    for one, other in itertools.product(counted[:1], counted[1:]):
        for part, mine, its in zip(one.parts, one.samples, other.samples, strict=True):
            if one.rows != other.rows and len(one.parts) == 1:
                agree = mine // one.rows == its // other.rows
            else:  # a batch that goes on in the next file must do so for every input
                agree = mine * other.rows == its * one.rows
            if agree:
                continue
            names = repr(one.spec.name), repr(other.spec.name)
            each = f" (a feed takes {one.rows} of {names[0]} and {other.rows} of {names[1]})"
            raise SippError(
                f"{part.where}: input {names[0]} has {_samples(mine)}, but input {names[1]} has "
                f"{its}{each if one.rows != other.rows else ''}: give every input the same samples"
            )


def _too_few(columns: Sequence[_Column]) -> SippError:
    column = next(column for column in columns if column.feeds == 0)
    return SippError(
        f"{column.parts[0].where}: input {column.spec.name!r} has {_samples(sum(column.samples))}, "
        f"but the model takes batches of {column.rows}: give at least {column.rows}"
    )


def _left_over(columns: Sequence[_Column]) -> Iterator[str]:
    batches = {c.rows: sum(c.samples) % c.rows for c in columns if c.rows > 1}
    for rows, left in batches.items():
        if left:
            if left == 1:
                yield f"the last sample does not fill a batch of {rows} and is not used"
            else:
                yield f"the last {left} samples do not fill a batch of {rows} and are not used"


def _amount(count: int, available: int, batch: int) -> str:
    first = "" if count == available else f"first {count} of "
    if batch == 1:
        return first + _samples(available)
    plural = "es" if available > 1 else ""
    return f"{first}{available} batch{plural} of {batch} samples"


def _samples(count: int) -> str:
    return f"{count} sample{'' if count == 1 else 's'}"
