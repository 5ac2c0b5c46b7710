"""What a run prints that cut channels out of the graph."""

from __future__ import annotations

from rich.table import Column, Table

from onnx_sipp.report.names import shown
from onnx_sipp.report.result import CutReport

__all__ = ["cut_rows", "group_table"]


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
            shown(group.name),
            shown(group.readers[0]) + more if group.readers else "",
            f"{group.kept} of {group.units}{width}",
            shown(group.reason or group.chosen_by),
        )
    return table


def cut_rows(cut: CutReport) -> list[tuple[str, str]]:
    """What is left of the whole model."""
    macs = cut.macs_after / cut.macs_before if cut.macs_before else 1.0
    parameters = cut.parameters_after / cut.parameters_before if cut.parameters_before else 1.0
    rows = [
        ("multiply-adds", f"{cut.macs_after:,} of {cut.macs_before:,} ({macs:.2%})"),
        ("parameters", f"{cut.parameters_after:,} of {cut.parameters_before:,} ({parameters:.2%})"),
    ]
    if cut.latency is not None:
        rows.append(("time in onnxruntime", f"{cut.latency:.1%} of the dense model's"))
    return rows
