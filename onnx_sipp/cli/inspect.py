"""`onnx-sipp inspect IN`."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_sipp.cli.help import GroupedCommand
from onnx_sipp.cli.logs import quiet_option
from onnx_sipp.cli.output import as_file, deliver, refuse_outputs
from onnx_sipp.cli.shared import exclusion_options, json_option

__all__ = ["command"]

_HELP = """
List the prunable layers of IN.onnx, and the nodes left alone with the reason.

The model is not run.

\b
onnx-sipp inspect in.onnx
onnx-sipp inspect in.onnx --exclude-nodes 'head*' --json found.json
"""


_SECTIONS = {
    "Layers": (
        "exclude_nodes", "exclude_op_types", "include_nodes", "include_op_types", "include_tied",
    ),
    "Result": ("json_path", "quiet"),
}  # fmt: skip


@click.command("inspect", cls=GroupedCommand, sections=_SECTIONS, help=_HELP)
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@exclusion_options
@json_option("the same")
@quiet_option
def command(
    source: Path,
    exclude_nodes: tuple[str, ...],
    exclude_op_types: tuple[str, ...],
    include_nodes: tuple[str, ...],
    include_op_types: tuple[str, ...],
    include_tied: bool,
    json_path: Path | None,
) -> None:
    """List the prunable layers; see `_HELP`."""
    from onnx_sipp.graph.model import Model  # noqa: PLC0415 - heavy; only once there is work to do
    from onnx_sipp.inspection import inspect  # noqa: PLC0415
    from onnx_sipp.report.names import json_text  # noqa: PLC0415
    from onnx_sipp.report.summary import print_inspection  # noqa: PLC0415

    refuse_outputs([as_file(json_path)], Model.load(source).files if json_path else [])
    found = inspect(
        source,
        exclude_nodes=exclude_nodes,
        exclude_op_types=exclude_op_types,
        include_nodes=include_nodes,
        include_op_types=include_op_types,
        include_tied=include_tied,
    )
    deliver(
        json_path,
        lambda: json_text(found.to_dict()),
        lambda console: print_inspection(found, console),
    )
