"""Where a report goes: the terminal, files, or standard output as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnx_sipp.cli.output import as_file, deliver, write_text
from onnx_sipp.cli.shared import json_option

if TYPE_CHECKING:
    from onnx_sipp.report.result import Report

__all__ = ["Destination", "report_options"]

F = TypeVar("F", bound=Callable[..., Any])


def report_options(function: F) -> F:
    """Add the options that say where the report goes."""
    reports = click.option(
        "--report",
        "reports",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write the report as .html, .md or .json; repeatable.",
    )
    return json_option("the report")(reports(function))


class Destination:
    """Where the report of a run goes.

    Args:
        json: a file, ``-``, or None.
        reports: files whose names say in what form they are.

    Raises:
        UsageError: such a name says nothing.
    """

    def __init__(self, json: Path | None, reports: Sequence[Path]) -> None:
        from onnx_sipp.report.document import form_of  # noqa: PLC0415 - only once there is work

        self._json = json
        self._forms = {path: form_of(path) for path in reports}

    @property
    def files(self) -> list[Path | None]:
        """That will be written; None for what goes to standard output."""
        return [as_file(self._json), *self._forms]

    def deliver(self, report: Report) -> None:
        """Write and print the report.

        Raises:
            SippError: a file cannot be written.
        """
        from onnx_sipp.report.summary import print_report  # noqa: PLC0415

        for path, form in self._forms.items():
            write_text(path, form(report))
        deliver(self._json, report.to_json, lambda console: print_report(report, console))
