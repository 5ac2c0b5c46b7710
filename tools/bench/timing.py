"""Several pieces of work timed in turn, so that what else the machine does falls on all alike."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Effort", "Timed", "alternating", "figures", "told"]

# Characters of a message that fit into a cell.
_SHORT = 100


@dataclass(frozen=True)
class Effort:
    """How often things are measured.

    Attributes:
        repeats: Rounds, at most.
        patience: Seconds after which no further round begins.
    """

    repeats: int = 3
    patience: float = 20.0


@dataclass
class Timed:
    """What became of a piece of work.

    Attributes:
        seconds: Of every round.
        result: Of the last round.
        trouble: Why there is none, in a few words; empty if all went well.
    """

    seconds: list[float] = field(default_factory=list)
    result: Any = None
    trouble: str = ""

    @property
    def median(self) -> float:
        """Of the seconds; nan if there are none."""
        return statistics.median(self.seconds) if self.seconds else float("nan")


def alternating(works: Mapping[str, Callable[[], Any]], effort: Effort) -> dict[str, Timed]:
    """Does all works in turn, round after round; what fails once is not tried again.

    Args:
        works: What to do, by name.
        effort: How often.
    """
    found = {name: Timed() for name in works}
    begin = time.perf_counter()
    for _ in range(effort.repeats):
        for name, work in works.items():
            if not found[name].trouble:
                _once(work, found[name])
        if time.perf_counter() - begin > effort.patience:
            break
    return found


def _once(work: Callable[[], Any], found: Timed) -> None:
    start = time.perf_counter()
    try:
        result = work()
    except Exception as error:
        found.trouble, found.seconds, found.result = _short(error), [], None
    else:
        found.seconds.append(time.perf_counter() - start)
        found.result = result


def _short(error: Exception) -> str:
    words = " ".join(str(error).split()).replace("|", "/")
    cut = words if len(words) <= _SHORT else f"{words[:_SHORT]}…"
    return f"{type(error).__name__}: {cut}" if cut else type(error).__name__


def figures(value: float) -> str:
    """Returns a number with about three figures; a dash for nan."""
    if value != value:  # noqa: PLR0124 - only nan is not itself
        return "–"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.{1 if abs(value) >= 10 else 2}f}"


def told(words: str) -> None:
    """Tells how far it is, apart from the page."""
    print(words, file=sys.stderr, flush=True)
