"""Samples that stay in memory once they were read, if they are few: runs go through them often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from onnx_sipp.calibration.sources import Source
from onnx_sipp.calibration.specs import Feed

__all__ = ["HELD_BYTES", "Held"]

HELD_BYTES = 8 << 20


class Held:
    """A source that reads and checks its data once, where all of it takes little memory.

    Args:
        source: of the feeds.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._feeds: list[Feed] | None = None
        self._fits = True

    @property
    def description(self) -> str:
        """See `Source`."""
        return self._source.description

    @property
    def synthetic(self) -> bool:
        """See `Source`."""
        return self._source.synthetic

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Source`."""
        return self._source.notes

    @property
    def restarts(self) -> tuple[int, ...]:
        """See `Source`."""
        return self._source.restarts

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Feed]:
        if self._feeds is not None:
            return iter(self._feeds)
        return self._read() if self._fits else iter(self._source)

    def _read(self) -> Iterator[Feed]:
        feeds: list[Feed] = []
        room: float = HELD_BYTES
        for feed in self._source:
            room -= sum(map(_bytes, feed.values()))
            if room >= 0:
                # What is read may be part of something larger.
                feeds.append({name: value.copy() for name, value in feed.items()})
            else:
                self._fits = False
                feeds.clear()
            yield feed
        if self._fits:
            self._feeds = feeds


def _bytes(value: Any) -> float:
    """Of a tensor of numbers; anything else has no end."""
    plain = isinstance(value, np.ndarray) and not value.dtype.hasobject
    return value.nbytes if plain else float("inf")
