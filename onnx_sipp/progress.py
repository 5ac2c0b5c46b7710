"""How the pipeline tells how far it is."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Listens to the pipeline; the command line draws bars, others may do as they like."""

    def stage(self, name: str) -> None:
        """A new stage begins."""
        ...

    def advance(self, amount: int, total: int) -> None:
        """So many more of ``total`` units of this stage are done."""
        ...


class Silent:
    """Says nothing."""

    def stage(self, name: str) -> None:
        """See `Progress.stage`."""

    def advance(self, amount: int, total: int) -> None:
        """See `Progress.advance`."""
