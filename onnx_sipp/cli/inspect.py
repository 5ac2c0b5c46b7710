"""`onnx-sipp inspect IN`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from onnx_sipp.cli.shared import exclusion_options, output_console, refuse_outputs, write_text

__all__ = ["command"]


@click.command("inspect")
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@exclusion_options
@click.option("--json", "json_path", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the same as JSON.")  # fmt: skip
def command(
    source: Path,
    exclude_nodes: tuple[str, ...],
    exclude_op_types: tuple[str, ...],
    include_nodes: tuple[str, ...],
    include_op_types: tuple[str, ...],
    include_tied: bool,
    json_path: Path | None,
) -> None:
    """List the prunable layers of IN.onnx, and the nodes left alone with the reason.

    The model is not run.
    """
    from onnx_sipp.graph.model import Model  # noqa: PLC0415 - heavy; only once there is work to do
    from onnx_sipp.inspection import inspect  # noqa: PLC0415
    from onnx_sipp.report.summary import print_inspection  # noqa: PLC0415

    refuse_outputs([json_path], Model.load(source).files if json_path else [])
    found = inspect(
        source,
        exclude_nodes=exclude_nodes,
        exclude_op_types=exclude_op_types,
        include_nodes=include_nodes,
        include_op_types=include_op_types,
        include_tied=include_tied,
    )
    if json_path is not None:
        write_text(json_path, json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n")
    print_inspection(found, output_console())
