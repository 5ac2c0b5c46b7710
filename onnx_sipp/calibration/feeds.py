"""Calibration data as complete feeds, each taken as it is."""

from __future__ import annotations

__all__ = ["FeedSource", "SampleSequence", "ignored_note", "snapshot"]

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from onnx_sipp.calibration.checks import check_names, conform
from onnx_sipp.errors import SippError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from onnx_sipp.calibration.specs import Feed, InputSpec


class SampleSequence(Protocol):
    """What a list of feeds has, and many a data set that makes them when asked."""

    def __len__(self) -> int:
        """The number of feeds."""

    def __getitem__(self, index: int, /) -> Any:
        """One feed."""


class FeedSource:
    """Feeds that Python code made.

    Attributes:
        description: What the data is, for people.
        synthetic: Always False.
        notes: What the user must be told.
        restarts: None are known.
    """

    synthetic = False
    restarts: tuple[int, ...] = ()

    def __init__(
        self,
        feeds: SampleSequence,
        specs: Sequence[InputSpec],
        label: str,
        num_samples: int | None = None,
    ) -> None:
        """Check every feed that will be used.

        Args:
            feeds: The feeds; one is asked for at a time.
            specs: The inputs of the model.
            label: The name of the data, for people.
            num_samples: The most feeds to use.

        Raises:
            SippError: If there is none, or one of them cannot be fed.
        """
        available = len(feeds)
        if available == 0:
            raise SippError(f"{label}: there is no feed; give at least one dict of arrays")
        self._feeds, self._specs, self._label = feeds, specs, label
        self._count = min(available, num_samples or available)
        first = "" if self._count == available else f"first {self._count} of "
        self.description = f"{label} ({first}{available} feed{'s' if available > 1 else ''})"
        ignored: dict[str, None] = {}
        for index in range(self._count):
            ignored |= dict.fromkeys(self._feed(index)[1])
        self.notes = (ignored_note(label, ignored),) if ignored else ()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Feed]:
        return (self._feed(index)[0] for index in range(self._count))

    def _feed(self, index: int) -> tuple[Feed, list[str]]:
        where = f"{self._label}, feed {index}"
        feed = self._feeds[index]
        if not isinstance(feed, Mapping):
            raise SippError(
                f"{where}: must be a dict of arrays by input name, but it is a "
                f"{type(feed).__name__}; e.g. {{{self._specs[0].name!r}: array}}"
            )
        extra = check_names(feed.keys(), self._specs, where)
        given = [spec for spec in self._specs if spec.name in feed]
        return {spec.name: conform(feed[spec.name], spec, where) for spec in given}, extra


def ignored_note(label: str, names: Iterable[str]) -> str:
    """Say which arrays are not used."""
    listed = ", ".join(map(repr, names))
    return f"{label}: ignored {listed}, which the model does not take"


def snapshot(feeds: Iterable[Any], num_samples: int | None) -> list[Any]:
    """Keep what can be iterated over only once.

    Args:
        feeds: The feeds; no more than needed are taken.
        num_samples: The most feeds to take.

    Returns:
        The feeds, their arrays copied: some readers fill the same buffer anew for each feed.
    """
    return [_copied(feed) for feed in islice(feeds, num_samples)]


def _copied(feed: Any) -> Any:
    if not isinstance(feed, Mapping):
        return feed
    return {
        name: value.copy() if isinstance(value, np.ndarray) else value
        for name, value in feed.items()
    }
