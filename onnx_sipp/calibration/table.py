"""Calibration data as arrays whose leading axis counts the samples."""

from __future__ import annotations

__all__ = ["TableSource"]

import itertools
from typing import TYPE_CHECKING

from onnx_sipp.calibration.columns import Column
from onnx_sipp.errors import SippError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from onnx_sipp.calibration.rows import Rows
    from onnx_sipp.calibration.specs import Feed, InputSpec


class TableSource:
    """Feeds cut out of arrays, which may be spread over several files.

    Nothing but the feed that is being made (and a small piece of each file) is in memory.

    Attributes:
        description: What the data is, for people.
        synthetic: Always False.
        notes: What the user must be told.
        restarts: The feeds with which a file begins.
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
            files: The arrays of each file by input name; every input must be there that is not
                optional.
            specs: The inputs of the model.
            num_samples: The most feeds to make.
            notes: What was noticed on the way here.

        Raises:
            SippError: If a type, a shape, a number of samples or a value is wrong.
        """
        columns = [
            Column.lay_out(spec, [arrays[spec.name] for arrays in files])
            for spec in specs
            if not spec.optional or _everywhere(spec.name, files)
        ]
        self._first = [c for c in columns if _is_first_value(c, columns)]
        self._columns = [column for column in columns if column not in self._first]
        _check_counts(self._columns)
        available = min((c.feeds for c in self._columns if c.feeds is not None), default=1)
        if available == 0:
            raise _too_few(self._columns)
        self._count = min(available, num_samples or available)
        self.restarts = _beginnings(self._columns)
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
        first = {column.spec.name: next(iter(column.arrays())) for column in self._first}
        for values in itertools.islice(zip(*streams, strict=False), self._count):
            yield dict(zip(names, values, strict=True)) | first
            first = {}


def _check_counts(columns: Sequence[Column]) -> None:
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


def _everywhere(name: str, files: Sequence[Mapping[str, Rows]]) -> bool:
    """Whether all files have an optional input, or none has.

    Raises:
        SippError: Some have it.
    """
    lacking = [arrays for arrays in files if name not in arrays]
    if lacking and len(lacking) < len(files):
        where = next(iter(lacking[0].values())).where
        raise SippError(
            f"{where}: has no array for the state {name!r}, but other files have one: give it in "
            "all files or in none"
        )
    return not lacking


def _is_first_value(column: Column, columns: Sequence[Column]) -> bool:
    """Whether an optional input has one value, where the others have several."""
    most = max((c.feeds for c in columns if c.feeds is not None), default=1)
    return column.spec.optional and column.feeds == 1 < most


def _beginnings(columns: Sequence[Column]) -> tuple[int, ...]:
    """The feeds with which a file begins; () where feeds may reach across the borders of files."""
    counted = next((c for c in columns if c.layout != "shared"), None)
    if counted is None or any(column.rows > 1 for column in columns):
        return ()
    return tuple(itertools.accumulate(counted.samples, initial=0))[:-1]


def _too_few(columns: Sequence[Column]) -> SippError:
    column = next(column for column in columns if column.feeds == 0)
    return SippError(
        f"{column.parts[0].where}: input {column.spec.name!r} has {_samples(sum(column.samples))}, "
        f"but the model takes batches of {column.rows}: give at least {column.rows}"
    )


def _left_over(columns: Sequence[Column]) -> Iterator[str]:
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
