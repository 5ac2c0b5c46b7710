"""What a run prints that cut channels out of the graph."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Column, Table

from onnx_sipp.report.result import CutReport

__all__ = ["SMALLER", "add_cut_rows", "group_table"]

SMALLER = (
    "What was cut is gone from the graph: the file is smaller and every runtime has less to do. "
    "Nothing is guaranteed of it: trust the measured errors."
)


def group_table(cut: CutReport) -> Table:
    """The groups: what is left of each, or why nothing was cut."""
    names = [Column(title, overflow="fold") for title in ("made by", "read by")]
    table = Table(*names, title="Channels that go together", title_justify="left")
    table.add_column("kept", justify="right")
    table.add_column("chosen by, or why all stay")
    for group in cut.groups:
        more = f" and {len(group.readers) - 1} more" if len(group.readers) > 1 else ""
        width = f" × {group.width}" if group.width > 1 else ""
        table.add_row(
            escape(group.name),
            escape(group.readers[0]) + more if group.readers else "",
            f"{group.kept} of {group.units}{width}",
            escape(group.reason or group.chosen_by),
        )
    return table


def add_cut_rows(cut: CutReport, table: Table) -> None:
    """Add what is left of the whole model to the totals."""
    macs = cut.macs_after / cut.macs_before if cut.macs_before else 1.0
    parameters = cut.parameters_after / cut.parameters_before if cut.parameters_before else 1.0
    table.add_row("multiply-adds", f"{cut.macs_after:,} of {cut.macs_before:,} ({macs:.2%})")
    table.add_row(
        "parameters", f"{cut.parameters_after:,} of {cut.parameters_before:,} ({parameters:.2%})"
    )
    if cut.latency is not None:
        table.add_row("time in onnxruntime", f"{cut.latency:.1%} of the dense model's")
