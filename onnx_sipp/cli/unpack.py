"""`onnx-sipp unpack IN OUT`."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_sipp.cli.logs import quiet_option
from onnx_sipp.cli.output import output_console, refuse_outputs

__all__ = ["command"]

_HELP = """
Write a packed model as it was before: every weight dense, with its zeros.

\b
onnx-sipp unpack small.onnx back.onnx
"""


@click.command("unpack", help=_HELP)
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT.onnx", type=click.Path(path_type=Path))
@quiet_option
def command(source: Path, target: Path) -> None:
    """Write a packed model as it was; see `_HELP`."""
    from onnx_sipp.graph.model import Model  # noqa: PLC0415 - heavy; only once there is work to do
    from onnx_sipp.packing.unpack import unpack  # noqa: PLC0415
    from onnx_sipp.report.packing import print_unpacking  # noqa: PLC0415

    model = Model.load(source)
    model.refuse_target(target)
    refuse_outputs([target], model.files)
    result = unpack(model)
    print_unpacking(len(result.names), result.save(target), output_console())
