"""Where a report goes: the terminal, files, or standard output as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnx_sipp.cli.shared import output_console, write_text

if TYPE_CHECKING:
    from onnx_sipp.report.result import Report

__all__ = ["STDOUT", "Destination", "report_options"]

F = TypeVar("F", bound=Callable[..., Any])

STDOUT = Path("-")


def report_options(function: F) -> F:
    """Add the options that say where the report goes."""
    json = click.option(
        "--json",
        "json_path",
        type=click.Path(path_type=Path, allow_dash=True),
        metavar="FILE",
        help="Write the report as JSON; - for standard output, and nothing else there.",
    )
    reports = click.option(
        "--report",
        "reports",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write the report as a page (.html), as text (.md) or as data (.json). Repeat for "
        "more.",
    )
    return json(reports(function))


class Destination:
    """Where the report of a run goes.

    Args:
        json: a file, `STDOUT`, or None.
        reports: files whose names say in what form they are.

    Raises:
        UsageError: such a name says nothing.
    """

    def __init__(self, json: Path | None, reports: Sequence[Path]) -> None:
        from onnx_sipp.report.document import form_of  # noqa: PLC0415 - only once there is work

        self._to_stdout = json == STDOUT
        named = {path: form_of(path) for path in reports}
        if json is not None and not self._to_stdout:
            named[json] = form_of(Path("report.json"))
        self._forms = named

    @property
    def files(self) -> list[Path]:
        """That will be written."""
        return list(self._forms)

    def deliver(self, report: Report) -> None:
        """Write and print the report.

        Raises:
            SippError: a file cannot be written.
        """
        from onnx_sipp.report.summary import print_report  # noqa: PLC0415

        for path, form in self._forms.items():
            write_text(path, form(report))
        if self._to_stdout:
            click.echo(report.to_json(), nl=False)
        else:
            print_report(report, output_console())
