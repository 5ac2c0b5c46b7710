"""Options and arguments that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from onnx_sipp.choices import VALUES
from onnx_sipp.errors import UsageError

__all__ = ["exclusion_options", "json_option", "open_calibration", "pack_values_option"]

F = TypeVar("F", bound=Callable[..., Any])


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


def json_option(what: str) -> Callable[[F], F]:
    """Add ``--json``, for a file or standard output; see `output.deliver`."""
    return click.option(
        "--json",
        "json_path",
        type=click.Path(path_type=Path, allow_dash=True),
        metavar="FILE",
        help=f"Write {what} as JSON; - for standard output.",
    )
