"""A configuration and what is said elsewhere, together; and the same written down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from onnx_sipp.checked import checked_options
from onnx_sipp.config.kinds import PATHS, PLACES
from onnx_sipp.config.reading import Config
from onnx_sipp.errors import UsageError
from onnx_sipp.options import Options

__all__ = ["GOALS", "checked_with", "merged", "written"]

# Each of these fixes the sparsity, so one said elsewhere stands for all in a file.
GOALS = (
    "sparsity", "epsilon", "max_error", "min_agreement", "max_drop", "eval_script", "macs",
    "latency", "masks",
)  # fmt: skip


def merged(
    config: Config | None, defaults: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Options of a run.

    Args:
        config: what a file says, if there is one.
        defaults: what holds where neither says anything.
        given: what counts more than the file.
    """
    said = {} if config is None else dict(config.options)
    if any(given.get(name) is not None for name in GOALS):
        said = {name: value for name, value in said.items() if name not in GOALS}
    return {**defaults, **said, **given}


def checked_with(config: Config | None, options: Mapping[str, Any]) -> Options:
    """Check options; where a file is to blame, say the line.

    Raises:
        UsageError: they make no sense.
    """
    try:
        return checked_options(options)
    except UsageError as error:
        line = None if config is None else _to_blame(config, options)
        if config is None or line is None:
            raise
        raise UsageError(f"{config.path}, line {line}: {error}") from error


def _to_blame(config: Config, options: Mapping[str, Any]) -> int | None:
    """Line of the last option of a file without which all would be well, None if there is none."""
    for name in sorted(config.options, key=lambda name: -config.lines.get(name, 0)):
        if options.get(name) is not config.options[name]:
            continue  # it was said elsewhere
        try:
            checked_options({key: value for key, value in options.items() if key != name})
        except UsageError:
            continue
        return config.lines.get(name)
    return None


def written(options: Options, places: Mapping[str, Any], target: Path) -> str:
    """A configuration that says everything that holds, so that a run can be repeated.

    Args:
        options: of the run.
        places: the calibration data, as in `Config.places`.
        target: where it will be; paths are relative to its folder.
    """
    values = {**{name: places.get(name) for name in PLACES}, **options.to_dict()}
    said = {name: value for name, value in values.items() if value not in (None, "", [], {})}
    for name in set(said) & set(PATHS):
        said[name] = _relative(said[name], target.parent)
    if "custom_ops" in said:
        said["custom_ops"] = [_relative(path, target.parent) for path in said["custom_ops"]]
    return str(yaml.safe_dump(said, sort_keys=False, allow_unicode=True))


def _relative(path: Any, folder: Path) -> str:
    return Path(os.path.relpath(str(path), folder)).as_posix()
