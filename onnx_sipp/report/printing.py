"""Tables of texts, and warnings, in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnx_sipp.report.names import shown, visible

__all__ = ["print_tables"]


def print_tables(
    tables: Iterable[tuple[str, Sequence[str], Iterable[Sequence[str]]]],
    warnings: Iterable[str],
    console: Console,
) -> None:
    """Print tables, and then warnings.

    Args:
        tables: titles, headings and rows; the first column is to the left, the others to the right.
        warnings: what the user must know.
        console: to print on.
    """
    for title, heads, rows in tables:
        table = Table(title=Text(visible(title)), title_justify="left")
        for index, head in enumerate(heads):
            table.add_column(shown(head), justify="right" if index else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(visible(cell, "\n")) for cell in row))
        console.print(table)
    for warning in warnings:
        console.print(Text(visible(f"Warning: {warning}", "\n"), style="bold yellow"))
