"""`onnx-sipp`: the group of commands, and how errors leave it."""

from __future__ import annotations

import atexit
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from onnx_sipp import __version__
from onnx_sipp.cli.guard import bounded_memory, refuse_little_memory
from onnx_sipp.cli.help import WIDTH
from onnx_sipp.errors import SippError, UsageError

__all__ = ["cli", "main", "run"]

# One module per command, imported when it is asked for: they take a while.
_COMMANDS = {
    "prune": "Prune a model (the default command).",
    "calibrate": "Measure a model's statistics once, for several runs.",
    "sweep": "Show what every sparsity costs, or every layer alone.",
    "inspect": "List what can be pruned, and what cannot and why.",
    "compare": "Measure two models side by side.",
    "pack": "Write a model with many zeros smaller.",
    "unpack": "Undo that.",
}
_DEFAULT = "prune"
_LONGEST = 4000  # of a message: names may be of any length
_INTERRUPTED = (
    "interrupted; no file was left half-written. With --workdir, run it again and it goes on where "
    "it was; without, it starts anew"
)


class _Group(click.Group):
    """Runs `prune` where the first argument is no command: ``onnx-sipp in.onnx out.onnx``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See `click.Group.list_commands`."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See `click.Group.get_command`."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"onnx_sipp.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See `click.Group.format_commands`."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands, and files, which the default command takes."""
        return [*super().shell_complete(ctx, incomplete), CompletionItem(incomplete, type="file")]

    def invoke(self, ctx: click.Context) -> Any:
        """See `click.Group.invoke`."""
        refuse_little_memory()
        return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See `click.Group.parse_args`."""
        own = {"--help", "-h", "--version"}
        if args and args[0] not in (*_COMMANDS, *own):
            near = get_close_matches(args[0], _COMMANDS, 1)
            if near and not Path(args[0]).exists() and not ctx.resilient_parsing:
                ctx.fail(f"there is no command {args[0]!r}; did you mean {near[0]!r}?")
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


_HELP = """
Prune trained ONNX models after training: no framework, no retraining.

\b
onnx-sipp in.onnx out.onnx --calib samples.npz --sparsity 0.7
onnx-sipp in.onnx out.onnx --calib samples.npz --min-agreement 0.99
onnx-sipp sweep in.onnx --calib samples.npz
onnx-sipp inspect in.onnx
onnx-sipp compare dense.onnx pruned.onnx --data test.npz
onnx-sipp pack pruned.onnx small.onnx

`onnx-sipp IN OUT` is short for `onnx-sipp prune IN OUT`.
"""


_EPILOG = """
\b
Exit codes: 0 done, 1 it could not be done, 2 wrong usage, 3 done, but --fail-if-drop.
Completion in bash (or zsh, fish): eval "$(_ONNX_SIPP_COMPLETE=bash_source onnx-sipp)"
"""


@click.command(
    cls=_Group,
    help=_HELP,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
    epilog=_EPILOG,
)
@click.version_option(__version__, prog_name="onnx-sipp")
def cli() -> None:
    """Run one of the commands; see `_HELP`."""


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ε must not end the run
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _terminable(), bounded_memory():
            cli.main(given, prog_name="onnx-sipp", standalone_mode=False, obj=given)
    except click.exceptions.Abort:
        _die(_INTERRUPTED, 1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UsageError as error:
        _die(str(error), 2)
    except SippError as error:
        _die(str(error), 1)
    except MemoryError:
        _die("out of memory; try fewer samples at a time: --batch-size 1", 1)
    except ImportError as error:
        _die(_INTERRUPTED if _by_signal(error) else f"a library cannot be loaded: {error}", 1)
    except RecursionError:
        _die("the input is nested too deep to be read", 1)
    except OSError as error:
        _die(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)
    finally:
        if arguments is None:
            _ignore_signals()


def run() -> NoReturn:
    """Run the command line as the process that it was called in, and end that at once.

    Python would take the libraries down one by one, for some tenths of a second.
    """
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    atexit._run_exitfuncs()  # noqa: SLF001 - what else is left to do
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except OSError:  # nobody reads it any more; Python itself would say the same
        code = code or 120
    os._exit(code if isinstance(code, int) else int(code is not None))


def _open_closed_streams() -> None:
    """Have what is printed go nowhere, not into the next file that is opened."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


@contextmanager
def _terminable() -> Iterator[None]:
    """Take a request to end, as containers and CI send it, for Ctrl-C: temporary files go, too."""
    if threading.current_thread() is not threading.main_thread():  # only it hears signals
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _by_signal(error: BaseException | None) -> bool:
    """Whether it was caused by a request to end, which libraries wrap that were just loaded."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _ignore_signals() -> None:
    """Once all is done and told, a late request to end must not make a failure of it.

    Libraries take some tenths of a second to be unloaded.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


def _die(message: str, code: int) -> None:
    from onnx_sipp.report.names import visible  # noqa: PLC0415 - only where it is needed

    message = visible(message, "\n")  # names of a model may hold escapes for the terminal
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]}… (and {len(message) - _LONGEST:,} characters more)"
    click.echo(f"onnx-sipp: {message}", err=True)
    sys.exit(code)
