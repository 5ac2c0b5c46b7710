"""Where results go: to files, and to who or what reads standard output."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnx_sipp.cli.logs import is_quiet
from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.files import refuse_place, write_together

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["as_file", "deliver", "output_console", "refuse_outputs", "write_text"]

# Wide enough for a table where nobody looks at it, but a program reads it.
PIPE_WIDTH = 160

STDOUT = Path("-")


def refuse_outputs(outputs: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """Check, before any work is done, that outputs can be written and overwrite no input.

    Args:
        outputs: files to be written, None where there is none.
        inputs: files that are read, None where there is none.

    Raises:
        UsageError: an output is a folder, an input or another output, or in a missing or read-only
            folder.
    """
    given = [output for output in outputs if output is not None]
    for output in given:
        refuse_place(output)
        if any(_same(output, read) for read in inputs if read is not None):
            raise UsageError(f"{str(output)!r} would overwrite an input; give another name")
    for one, other in combinations(given, 2):
        if one.parent.resolve() / one.name == other.parent.resolve() / other.name:
            raise UsageError(f"{str(one)!r} is to be written twice; give different names")


def _same(output: Path, read: Path) -> bool:
    return output.exists() and read.exists() and output.samefile(read)


def as_file(path: Path | None) -> Path | None:
    """The file that is meant; None for standard output."""
    return None if path == STDOUT else path


def deliver(
    json_path: Path | None, text: Callable[[], str], show: Callable[[Console], None]
) -> None:
    """Write a result as JSON, if that is asked for, and show it, unless JSON is on standard output.

    Args:
        json_path: a file, ``-``, or None.
        text: makes the JSON.
        show: prints the result.

    Raises:
        SippError: the file cannot be written, or nobody takes what is printed.
    """
    if json_path is not None and json_path != STDOUT:
        write_text(json_path, text())
    try:
        if json_path == STDOUT:
            click.echo(text(), nl=False)
        else:
            show(output_console())
        sys.stdout.flush()
    except OSError as error:
        # Python would try once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SippError(
            f"cannot print the result: {error.strerror}; what goes to files is written"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a small file, whole or not at all.

    Raises:
        SippError: it cannot be written.
    """
    write_together([(path, lambda out: out.write(text.encode()))])


def output_console() -> Console:
    """Where a command prints its result: the terminal, or a pipe wide enough for its tables.

    Nowhere if it is to be quiet.
    """
    from rich.console import Console  # noqa: PLC0415 - heavy; only once there is work to do

    class Telling(Console):
        """A console that tells when nobody listens any more; rich would just exit."""

        def on_broken_pipe(self) -> None:
            """See `Console.on_broken_pipe`."""
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    if is_quiet():
        return Console(quiet=True)
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Telling(width=None if narrow else PIPE_WIDTH)
