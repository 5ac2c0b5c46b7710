"""Options and arguments that several commands have."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnx_sipp.choices import VALUES
from onnx_sipp.cli.logs import is_quiet
from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.files import refuse_place, write_together
from onnx_sipp.memory import read_size

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "as_file",
    "byte_size",
    "deliver",
    "exclusion_options",
    "input_shape",
    "json_option",
    "numbers",
    "open_calibration",
    "output_console",
    "pack_values_option",
    "refuse_outputs",
    "shares",
    "state_map",
    "state_pair",
    "write_text",
]

F = TypeVar("F", bound=Callable[..., Any])

# Wide enough for a table where nobody looks at it, but a program reads it.
PIPE_WIDTH = 160

STDOUT = Path("-")


def input_shape(value: str) -> tuple[str, tuple[int, ...]]:
    """Part ``name:1,3,224,224`` into the name (which may hold colons) and the numbers.

    Raises:
        BadParameter: it is not of that form.
    """
    name, _, dims = value.rpartition(":")
    try:
        shape = tuple(int(dim) for dim in dims.split(","))
    except ValueError:
        shape = ()
    if not name or not shape:
        raise click.BadParameter(f"{value!r} is not of the form name:1,3,224,224")
    return name, shape


def numbers(value: str) -> list[int]:
    """Read ``1,16`` as a list.

    Raises:
        BadParameter: it is not of that form.
    """
    try:
        return [int(part) for part in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no list of numbers; write it like 1,16") from error


def shares(value: str) -> list[float]:
    """Read ``0.3,0.5`` as a list.

    Raises:
        BadParameter: it is not of that form.
    """
    try:
        return [float(part) for part in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is no list of shares; write it like 0.3,0.5,0.7"
        ) from error


def state_pair(value: str) -> tuple[str, str]:
    """Part ``in=out`` into the name of an input and that of the output it comes from.

    Raises:
        BadParameter: it is not of that form, nor empty.
    """
    given, _, made = value.partition("=")
    if value and not (given and made):
        raise click.BadParameter(f"{value!r} is not of the form input=output")
    return given, made


def state_map(pairs: Iterable[tuple[str, str]]) -> dict[str, str] | None:
    """States by input; None if no pair was given, nothing if the only one is empty."""
    named = list(pairs)
    return {given: made for given, made in named if given} if named else None


def byte_size(value: str) -> int:
    """Read a number of bytes: ``512MB``, ``2GB``, ``1048576``.

    Raises:
        BadParameter: it is not of that form.
    """
    size = read_size(value)
    if size is None:
        raise click.BadParameter(f"{value!r} is no size; write it like 512MB or 2GB")
    return size


def exclusion_options(function: F) -> F:
    """Add the options that say which layers are pruned."""
    nodes = click.option(
        "--exclude-nodes",
        "--nodes_to_exclude",
        multiple=True,
        metavar="GLOB",
        help="Leave these nodes alone; repeatable.",
    )
    ops = click.option(
        "--exclude-op-types",
        "--op_types_to_exclude",
        multiple=True,
        metavar="OP",
        help="Leave these operators alone, e.g. Gemm; repeatable.",
    )
    only_nodes = click.option(
        "--include-nodes",
        multiple=True,
        metavar="GLOB",
        help="Leave all other nodes alone; repeatable.",
    )
    only_ops = click.option(
        "--include-op-types",
        multiple=True,
        metavar="OP",
        help="Leave all other operators alone; repeatable.",
    )
    tied = click.option(
        "--include-tied",
        is_flag=True,
        help="Prune weights, too, that other nodes read (tied embeddings).",
    )
    return nodes(ops(only_nodes(only_ops(tied(function)))))


def pack_values_option(function: F) -> F:
    """Add the option that says how the weights of a packed model are stored."""
    return click.option(
        "--pack-values",
        type=click.Choice(VALUES),
        default=VALUES[0],
        show_default=True,
        metavar="TYPE",
        help=f"Of packed weights: {', '.join(VALUES)}.",
    )(function)


def open_calibration(calib: Path | None, script: str | None) -> Any:
    """The calibration data that the options name.

    Raises:
        UsageError: both are given.
        SippError: the script fails.
    """
    if calib is not None and script is not None:
        raise UsageError("give either --calib or --data-loader-script, not both")
    if script is None:
        return calib
    from onnx_sipp.calibration.scripts import load_script  # noqa: PLC0415 - only where used

    return load_script(script)


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


def json_option(what: str) -> Callable[[F], F]:
    """Add ``--json``, for a file or standard output; see `print_or_write`."""
    return click.option(
        "--json",
        "json_path",
        type=click.Path(path_type=Path, allow_dash=True),
        metavar="FILE",
        help=f"Write {what} as JSON; - for standard output.",
    )


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
