"""What packing did, as plain data and in the terminal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from onnx_sipp.report.names import json_text, shown
from onnx_sipp.report.outputs import OutputReport

__all__ = [
    "LeftTensor",
    "PackReport",
    "PackedTensor",
    "packing_sentence",
    "print_packing",
    "print_unpacking",
]


@dataclass(frozen=True)
class PackedTensor:
    """A tensor that is rebuilt at load.

    Attributes:
        name: of the tensor.
        shape: of the tensor.
        elements: in all.
        kept: elements that are stored; the others are zero, or the zero point.
        encoding: how it is told where they are: ``mask``, ``nibbles`` or ``gaps``.
        values: type that they are stored in.
        bytes_before: its elements, dense.
        bytes_after: what takes their place, operators included.
        relative_error: ‖rebuilt − tensor‖ / ‖tensor‖; 0 if every bit is the same.
    """

    name: str
    shape: list[int]
    elements: int
    kept: int
    encoding: str
    values: str
    bytes_before: int
    bytes_after: int
    relative_error: float


@dataclass(frozen=True)
class LeftTensor:
    """A tensor that stays as it is, with the reason."""

    name: str
    bytes: int
    reason: str


@dataclass(frozen=True)
class PackReport:
    """What packing did to a model.

    Attributes:
        values: what was asked for: ``exact``, ``fp16`` or ``int8``.
        packed: tensors that are rebuilt at load.
        left: others of some size.
        bytes_before: size of the model with its external data, dense.
        bytes_after: the same, packed.
        outputs_before: fidelity of a pruned model before values were rounded, see `Report.outputs`
            for after; None where none were, or nothing was pruned.
    """

    values: str
    packed: list[PackedTensor]
    left: list[LeftTensor]
    bytes_before: int
    bytes_after: int
    outputs_before: list[OutputReport] | None = None

    @property
    def ratio(self) -> float:
        """Size packed, of that before."""
        return self.bytes_after / self.bytes_before

    @property
    def worst_error(self) -> float:
        """Largest relative error of a tensor; 0 if the outputs are the same to the bit."""
        return max((tensor.relative_error for tensor in self.packed), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON types only."""
        return {**asdict(self), "ratio": self.ratio, "worst_error": self.worst_error}

    def to_json(self) -> str:
        """The same as JSON text."""
        return json_text(self.to_dict())


def print_packing(report: PackReport, console: Console) -> None:
    """Print the packed tensors, those left alone, and the sizes."""
    if report.packed:
        console.print(_packed(report.packed))
    if report.left:
        table = Table(
            Column("tensor", overflow="fold"), title="Left as they are", title_justify="left"
        )
        table.add_column("bytes", justify="right")
        table.add_column("why")
        for left in report.left:
            table.add_row(shown(left.name), f"{left.bytes:,}", shown(left.reason))
        console.print(table)
    console.print(packing_sentence(report))


def _packed(tensors: list[PackedTensor]) -> Table:
    table = Table(Column("tensor", overflow="fold"), title="Packed", title_justify="left")
    for title in ("shape", "zeros", "stored as", "bytes", "packed", "relative error"):
        table.add_column(title, justify="right")
    for tensor in tensors:
        table.add_row(
            shown(tensor.name),
            "×".join(map(str, tensor.shape)),
            f"{1 - tensor.kept / tensor.elements:.1%}",
            f"{tensor.encoding}, {tensor.values}",
            f"{tensor.bytes_before:,}",
            f"{tensor.bytes_after:,}",
            f"{tensor.relative_error:.2g}" if tensor.relative_error else "none",
        )
    return table


def packing_sentence(report: PackReport) -> str:
    """Sizes and error in a sentence."""
    if not report.packed:
        return "Packing pays for no tensor: the file is the same as before."
    error = (
        f"the largest relative error of a tensor is {report.worst_error:.2g}"
        if report.worst_error
        else "every tensor is rebuilt to the bit"
    )
    return (
        f"Packed {len(report.packed)} tensors: {report.bytes_before:,} bytes before, "
        f"{report.bytes_after:,} after ({report.ratio:.3f}); {error}."
    )


def print_unpacking(tensors: int, size: int, console: Console) -> None:
    """Print how many tensors became dense again, and the size of the file."""
    console.print(f"Unpacked {tensors} tensors: {size:,} bytes.")
