"""Options for configurations, and how they go together with the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from onnx_sipp.cli.run_options import run_options
from onnx_sipp.cli.shared import open_calibration

__all__ = ["Request", "config_option", "request", "write_config_option"]

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """Add the option that reads a configuration."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Options, and rules for layers, in YAML; or a report to repeat.",
    )(function)


def write_config_option(function: F) -> F:
    """Add the option that writes one."""
    return click.option(
        "--write-config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write the options of this run as such a file.",
    )(function)


@dataclass(frozen=True)
class Request:
    """What a command is asked for, by a configuration and the command line together.

    Attributes:
        options: as keywords of `prune`.
        places: names of the calibration data, see `config.reading.Config`.
        files: that are read.
    """

    options: dict[str, Any]
    places: dict[str, Any]
    files: list[Path]
    _config: Any = None

    def calibration(self) -> Any:
        """The calibration data.

        Raises:
            UsageError: two are named.
            SippError: the script fails.
        """
        calib = self.places.get("calib")
        script = self.places.get("data_loader_script")
        return open_calibration(None if calib is None else Path(calib), script)

    def checked(self) -> Any:
        """The options, checked; an error names the line of the configuration that is to blame.

        Raises:
            UsageError: they make no sense.
        """
        from onnx_sipp.config.merging import checked_with  # noqa: PLC0415 - only once it is needed

        return checked_with(self._config, self.options)

    def written(self, target: Path) -> str:
        """A configuration of all that holds."""
        from onnx_sipp.config.merging import written  # noqa: PLC0415

        return written(self.checked(), self.places, target)


def request(path: Path | None, options: Mapping[str, Any], places: Mapping[str, Any]) -> Request:
    """Put together what a configuration and the command line say.

    Args:
        path: of the configuration, if there is one.
        options: of the command line, all of them.
        places: likewise.

    Raises:
        UsageError: the configuration cannot be read, or makes no sense.
    """
    from onnx_sipp.config.merging import merged  # noqa: PLC0415 - only once there is work to do
    from onnx_sipp.config.reading import read_config  # noqa: PLC0415

    config = None if path is None else read_config(path)
    source = click.get_current_context().get_parameter_source
    taken = run_options(options)
    given = {n: v for n, v in taken.items() if source(n) is not ParameterSource.DEFAULT}
    defaults = {n: v for n, v in taken.items() if n not in given}
    named = {name: value for name, value in places.items() if value is not None}
    if not named and config is not None:
        named = config.places
    asked = merged(config, defaults, given)
    read = [path, named.get("calib"), asked.get("masks"), asked.get("statistics")]
    files = [Path(file) for file in read if file is not None]
    return Request(asked, named, files, config)
