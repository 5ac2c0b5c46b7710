"""The user's own measure of a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_sipp.calibration.scripts import load_function
from onnx_sipp.calibration.session import open_session
from onnx_sipp.errors import SippError

__all__ = ["JudgedBy", "MetricFunction", "load_metric"]

# Of the path of a model.
MetricFunction = Callable[[Path], float]

DEFAULT_FUNCTION = "evaluate"
_PATHS = ("path", "model_path", "model")


@dataclass(frozen=True)
class JudgedBy:
    """A function that gives a number for a model.

    Attributes:
        name: for people.
    """

    name: str
    _function: Callable[[Any], Any]
    _open: Callable[[Path], Any]

    def __call__(self, path: Path) -> float:
        """The number for a model.

        Raises:
            SippError: the function fails, or gives no number.
        """
        value = self._function(self._open(path))
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise SippError(
                f"{self.name} must return a number, but it returned a {type(value).__name__}"
            ) from error


def load_metric(
    spec: str | MetricFunction,
    providers: Sequence[str] | None,
    libraries: Sequence[Path],
) -> JudgedBy:
    """Make a measure of a function.

    Args:
        spec: a function of a model's path; or ``file.py:function`` (``evaluate`` if not named),
            whose only argument is the path if it is called ``path``, ``model_path`` or ``model``,
            and an onnxruntime session otherwise.
        providers: of such sessions.
        libraries: that these must load.

    Raises:
        UsageError: there is no such file or function.
        SippError: the script fails.
    """
    if not isinstance(spec, str):
        return JudgedBy(getattr(spec, "__name__", "the function"), spec, str)
    script = load_function(spec, DEFAULT_FUNCTION)
    parameters = list(inspect.signature(script.function).parameters)

    def judged(model: Any) -> Any:
        with script.running():
            return script.function(model)

    def session(path: Path) -> Any:
        return open_session(
            path, folder=None, threads=None, providers=providers, libraries=libraries
        )

    wants_path = bool(parameters) and parameters[0] in _PATHS
    return JudgedBy(script.label, judged, str if wants_path else session)
