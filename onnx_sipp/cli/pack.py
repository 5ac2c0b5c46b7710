"""`onnx-sipp pack IN OUT`."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_sipp.cli.logs import quiet_option
from onnx_sipp.cli.output import as_file, deliver, refuse_outputs
from onnx_sipp.cli.shared import json_option, pack_values_option

__all__ = ["command"]

_HELP = """
Write IN.onnx smaller: weights with many zeros are rebuilt when the model is loaded.

The operators that rebuild them are ordinary ones, which a runtime evaluates once. Outputs and
speed stay the same; `onnx-sipp unpack` gives back the model as it was.

\b
onnx-sipp pack out.onnx small.onnx
onnx-sipp pack out.onnx small.onnx --pack-values fp16
"""


@click.command("pack", help=_HELP)
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT.onnx", type=click.Path(path_type=Path))
@pack_values_option
@json_option("what was packed")
@quiet_option
def command(source: Path, target: Path, pack_values: str, json_path: Path | None) -> None:
    """Write IN.onnx smaller; see `_HELP`."""
    from onnx_sipp.graph.model import Model  # noqa: PLC0415 - heavy; only once there is work to do
    from onnx_sipp.packing.pack import pack  # noqa: PLC0415
    from onnx_sipp.report.packing import print_packing  # noqa: PLC0415

    model = Model.load(source)
    model.refuse_target(target)
    refuse_outputs([target, as_file(json_path)], model.files)
    result = pack(model, values=pack_values)
    result.save(target)
    report = result.report
    deliver(json_path, report.to_json, lambda console: print_packing(report, console))
