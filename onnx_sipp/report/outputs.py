"""How well one output of the graph agrees with the dense model's."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OutputReport"]


@dataclass(frozen=True)
class OutputReport:
    """Fidelity of one output; see `calibration.fidelity.OutputFidelity`."""

    name: str
    relative_error: float | None
    cosine: float | None
    top1_agreement: float | None
    note: str = ""
