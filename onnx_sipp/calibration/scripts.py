"""Calibration data made by a user's script."""

from __future__ import annotations

__all__ = ["ScriptFeeds", "ScriptFunction", "load_function", "load_script"]

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_sipp.errors import SippError, UsageError

if TYPE_CHECKING:
    from types import ModuleType

_END = object()


class ScriptFeeds(Iterator[Any]):
    """What a script yields; an error in it says where in the script it happened.

    Attributes:
        label: The script and its function, for people.
    """

    def __init__(self, feeds: Iterable[Any], script: Path, label: str) -> None:
        """Start the iteration.

        Args:
            feeds: What the function returned.
            script: The file it is in.
            label: The script and its function, for people.

        Raises:
            SippError: If the script fails.
        """
        self.label = label
        self._script = script
        with _running(script):
            self._feeds = iter(feeds)

    def __next__(self) -> Any:
        with _running(self._script):
            feed = next(self._feeds, _END)
        if feed is _END:
            raise StopIteration
        return feed


def load_script(spec: str) -> Any:
    """Run the function of a script that makes calibration data.

    Args:
        spec: ``file.py`` or ``file.py:function``; the function is ``load_data`` if not named. It
            is called without arguments and yields one dict of arrays per feed, as in Polygraphy;
            it may also return a dict of arrays, one array or a CalibrationDataReader.

    Returns:
        What :func:`onnx_sipp.calibration.sources.open_source` takes.

    Raises:
        UsageError: If there is no such file or function.
        SippError: If the script fails; the message has the line and the reason.
    """
    script = load_function(spec, "load_data")
    with script.running():
        data = script.function()
    if isinstance(data, Mapping | np.ndarray):
        return data
    if callable(getattr(data, "get_next", None)):
        return ScriptFeeds(iter(data.get_next, None), script.path, script.label)
    if not isinstance(data, Iterable) or isinstance(data, str | bytes):
        raise SippError(
            f"{script.path}: {script.name}() must yield dicts of arrays by input name, but it "
            f"returned a {type(data).__name__}"
        )
    return ScriptFeeds(data, script.path, script.label)


@dataclass(frozen=True)
class ScriptFunction:
    """A function of a user's script.

    Attributes:
        path: The script.
        name: Of the function.
        function: The function.
    """

    path: Path
    name: str
    function: Callable[..., Any]

    @property
    def label(self) -> str:
        """The script and its function, for people."""
        return f"{self.path.name}:{self.name}"

    def running(self) -> AbstractContextManager[None]:
        """A context to call the function in: errors then say where in the script they happened."""
        return _running(self.path)


def load_function(spec: str, default: str) -> ScriptFunction:
    """Run a script and find a function in it.

    Args:
        spec: ``file.py`` or ``file.py:function``.
        default: The name of the function if none is given.

    Raises:
        UsageError: If there is no such file or function.
        SippError: If the script fails; the message has the line and the reason.
    """
    path, name = _split(spec, default)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such script; give file.py or file.py:function")
    function = getattr(_imported(path), name, None)
    if not callable(function):
        raise UsageError(
            f"{path}: has no function {name!r}; define it, or name another one as "
            f"{path.name}:function"
        )
    return ScriptFunction(path, name, function)


def _split(spec: str, default: str) -> tuple[Path, str]:
    path, colon, name = spec.rpartition(":")
    if colon and path and name.isidentifier():  # "C:\\data.py" ends in no identifier
        return Path(path), name
    return Path(spec), default


def _imported(path: Path) -> ModuleType:
    name = f"_onnx_sipp_script_{path.stem}"
    with _running(path):
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise UsageError(f"{path}: is no Python file; its name must end in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickle look for the module of a class here
        spec.loader.exec_module(module)
    return module


@contextmanager
def _running(script: Path) -> Iterator[None]:
    """Run a piece of the script: its neighbours can be imported, its errors are told."""
    folder = str(script.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    except SippError:
        raise
    except (Exception, SystemExit) as error:
        place = f"{script}{_line(script, error)}"
        raise SippError(f"{place}: the script failed: {type(error).__name__}: {error}") from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _line(script: Path, error: BaseException) -> str:
    """Find the last line of the script itself that the error passed through."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    own = str(script.resolve())
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if str(Path(frame.filename).resolve()) == own
    ]
    return f", line {lines[-1]}" if lines else ""
