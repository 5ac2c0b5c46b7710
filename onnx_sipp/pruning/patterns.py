"""Patterns that zeros have to lie in, as users write them: ``2:4``, ``4x1``, ``channels``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnx_sipp.errors import UsageError

__all__ = ["Blocks", "Channels", "NofM", "Pattern", "parse_pattern"]


@dataclass(frozen=True)
class NofM:
    """At most ``kept`` of every ``of`` weights along the input channels are not zero.

    Attributes:
        kept: N.
        of: M.
    """

    kept: int
    of: int

    @property
    def sparsity(self) -> float:
        """Share of zeros that it makes."""
        return 1 - self.kept / self.of

    @property
    def suits_sparse_cores(self) -> bool:
        """Whether at most 2 of every 4 weights are left, as sparse tensor cores ask for."""
        return (self.of % 4 == 0 and self.kept <= 2) or (self.kept, self.of) == (1, 2)

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}"


@dataclass(frozen=True)
class Blocks:
    """Weights go or stay in blocks of neurons times input channels.

    Attributes:
        rows: neighbouring neurons (output channels) of a block.
        columns: neighbouring input channels of a block.
    """

    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"


@dataclass(frozen=True)
class Channels:
    """Whole channels are removed from the graph."""

    def __str__(self) -> str:
        return "channels"


Pattern = NofM | Blocks | Channels


def parse_pattern(text: str) -> Pattern | None:
    """Read a pattern.

    Args:
        text: ``N:M``, ``RxC``, ``channels``, or ``""`` for none.

    Raises:
        UsageError: it is none of these, or its numbers make no sense.
    """
    if not text:
        return None
    if text == "channels":
        return Channels()
    if found := re.fullmatch(r"(\d{1,6}):(\d{1,6})", text):
        kept, of = int(found[1]), int(found[2])
        if not 0 < kept < of:
            raise UsageError(
                f"the pattern {text!r} makes no sense: N of every M weights stay, with N at least "
                "1 and below M, as in 2:4"
            )
        return NofM(kept, of)
    if found := re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text):
        rows, columns = int(found[1]), int(found[2])
        if rows * columns < 2:
            raise UsageError(
                f"the pattern {text!r} makes no sense: a block has at least two weights, as in "
                "4x1 (neurons x input channels); leave the pattern out for single weights"
            )
        return Blocks(rows, columns)
    raise UsageError(
        f"there is no pattern {text!r}; write N:M (2:4 keeps 2 of every 4 weights along the input "
        "channels), RxC (4x1 drops blocks of 4 output channels at 1 input channel), or channels"
    )
