"""Options and arguments that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from onnx_sipp.errors import SippError, UsageError

__all__ = ["ShapeParam", "exclusion_options", "open_calibration", "write_text"]

F = TypeVar("F", bound=Callable[..., Any])


class ShapeParam(click.ParamType[tuple[str, tuple[int, ...]]]):
    """``name:1,3,224,224``."""

    name = "shape"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """Part the name (which may hold colons) from the numbers."""
        name, separator, dims = str(value).rpartition(":")
        try:
            shape = tuple(int(dim) for dim in dims.split(",") if dim)
        except ValueError:
            shape = None
        if not separator or not name or shape is None:
            self.fail(f"{value!r} is not of the form name:1,3,224,224", param, ctx)
        return name, shape


def exclusion_options(function: F) -> F:
    """Add the options that leave nodes alone."""
    nodes = click.option(
        "--exclude-nodes",
        "--nodes_to_exclude",
        multiple=True,
        metavar="GLOB",
        help="Leave these nodes alone; repeat for more.",
    )
    ops = click.option(
        "--exclude-op-types",
        "--op_types_to_exclude",
        multiple=True,
        metavar="OP",
        help="Leave these operators alone, e.g. Gemm; repeat for more.",
    )
    return nodes(ops(function))


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


def write_text(path: Path, text: str) -> None:
    """Write a small file, beside its place and then renamed.

    Raises:
        SippError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise SippError(f"cannot write {str(path)!r}: {error.strerror}") from error
