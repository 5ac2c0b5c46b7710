"""Progress bars, only on a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["Bars"]

# Bars that are seen at a time: a search makes dozens.
_STAY = 5


class Bars:
    """Draws one bar per stage on standard error; silent where that is no terminal.

    Args:
        shown: whether to draw them where there is one.
    """

    def __init__(self, *, shown: bool = True) -> None:
        self._shown = shown and sys.stderr.isatty()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self._shown,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._shown:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:  # some versions of rich print an empty line even if disabled
            self._bars.stop()

    def stage(self, name: str) -> None:
        """Begin a new bar; the last ones stay, but for those that never came to know a length."""
        for task in self._bars.tasks:
            recent = task.id > len(self._bars.tasks) - _STAY
            self._bars.update(task.id, visible=recent and task.total is not None)
        self._task = self._bars.add_task(name, total=None)

    def advance(self, amount: int, total: int) -> None:
        """Move the bar of this stage."""
        if self._task is not None:
            self._bars.update(self._task, advance=amount, total=total)
