"""How much a command says while it works: bars, lines, a file, or nothing."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnx_sipp import __version__
from onnx_sipp.errors import SippError, UsageError

if TYPE_CHECKING:
    from onnx_sipp.progress import Progress

__all__ = ["is_quiet", "listening", "log_file", "log_options", "quiet_option"]

F = TypeVar("F", bound=Callable[..., Any])

_LOG = logging.getLogger("onnx_sipp")
_LOG.addHandler(logging.NullHandler())  # or Python prints errors by itself
_KEY = "onnx_sipp."
_FORM = "%(asctime)s %(levelname)s %(message)s"


def quiet_option(function: F) -> F:
    """Add ``-q``."""
    return click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_keep,
        help="Print nothing but errors.",
    )(function)


def log_options(function: F) -> F:
    """Add ``-q``, ``-v`` and ``--log-file``, which `listening` and `output` look up."""
    verbose = click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_keep,
        help="Print a line per step instead of bars, on standard error.",
    )
    file = click.option(
        "--log-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        expose_value=False,
        callback=_keep,
        help="Add the steps, and the trace of an error, to FILE.",
    )
    return quiet_option(verbose(file(function)))


def is_quiet() -> bool:
    """Whether the command that runs is to print nothing."""
    return bool(_kept("quiet"))


def log_file() -> Path | None:
    """The file that the command that runs is to log to."""
    found: Path | None = _kept("log_file")
    return found


@contextmanager
def listening() -> Iterator[Progress]:
    """Show how far a run is, and write it down, as the options say.

    Yields:
        What the pipeline tells it to.

    Raises:
        SippError: the log cannot be written.
    """
    from onnx_sipp.cli.progress import Bars  # noqa: PLC0415 - heavy; only once there is work to do

    with ExitStack() as stack:
        stack.enter_context(_to_own_handlers_alone())
        for handler in _handlers():
            stack.callback(_remove, handler)
            handler.setFormatter(_Tame(_FORM))
            _LOG.addHandler(handler)
        bars = stack.enter_context(Bars(shown=not (is_quiet() or _kept("verbose"))))
        steps = _Steps(bars)
        given = click.get_current_context().obj or []
        _LOG.info("onnx-sipp %s: %s", __version__, shlex.join(given))
        try:
            yield steps
        except BaseException as error:
            _LOG.error("ended by %s: %s", type(error).__name__, error)
            _LOG.debug("trace", exc_info=True)
            raise
        steps.end()


class _Tame(logging.Formatter):
    """Shows control characters, which names of a model may have, instead of obeying them."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        from onnx_sipp.report.names import visible  # noqa: PLC0415 - only where it is needed

        return visible(super().format(record), "\n")


class _Steps:
    """Passes on what it hears to the bars, and logs the steps with their seconds."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._name, self._begun = "reading", time.perf_counter()

    def stage(self, name: str) -> None:
        """See `Progress.stage`."""
        self.end()
        self._name, self._begun = name, time.perf_counter()
        _LOG.info("%s …", name)
        self._bars.stage(name)

    def advance(self, amount: int, total: int) -> None:
        """See `Progress.advance`."""
        self._bars.advance(amount, total)

    def end(self) -> None:
        _LOG.info("%s: %.1f s", self._name, time.perf_counter() - self._begun)


def _handlers() -> Iterator[logging.Handler]:
    if _kept("verbose") and not is_quiet():
        lines = logging.StreamHandler(sys.stderr)
        lines.setLevel(logging.INFO)  # traces are for the file
        yield lines
    path = log_file()
    if path is not None:
        if path.is_symlink():  # it is added to, so what the link points to would change
            raise UsageError(f"the log {str(path)!r} is a symbolic link; name the file itself")
        try:
            yield logging.FileHandler(path, encoding="utf-8")
        except OSError as error:
            raise SippError(f"cannot write the log {str(path)!r}: {error.strerror}") from error


@contextmanager
def _to_own_handlers_alone() -> Iterator[None]:
    """Log all, but to nothing that others have set up.

    Libraries and scripts that log by the root logger give it a handler, which would print here what
    options ask to keep in a file, or not to tell at all.
    """
    before = _LOG.level, _LOG.propagate
    _LOG.setLevel(logging.DEBUG)
    _LOG.propagate = False
    try:
        yield
    finally:
        _LOG.setLevel(before[0])
        _LOG.propagate = before[1]


def _remove(handler: logging.Handler) -> None:
    _LOG.removeHandler(handler)
    handler.close()


def _keep(context: click.Context, option: click.Parameter, value: Any) -> None:
    context.meta[f"{_KEY}{option.name}"] = value


def _kept(name: str) -> Any:
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(f"{_KEY}{name}")
