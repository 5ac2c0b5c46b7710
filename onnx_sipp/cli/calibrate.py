"""`onnx-sipp calibrate IN STATS`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_sipp.choices import DEFAULT_METHOD, PRUNE_ONLY
from onnx_sipp.cli.config import config_option, request
from onnx_sipp.cli.help import GroupedCommand
from onnx_sipp.cli.logs import listening, log_file, log_options
from onnx_sipp.cli.output import output_console, refuse_outputs
from onnx_sipp.cli.run_options import data_options, runtime_options
from onnx_sipp.cli.shared import exclusion_options
from onnx_sipp.pruning.methods import METHODS

__all__ = ["command"]

_HELP = """
Measure the statistics of IN.onnx that `prune` and `sweep` need, and write them to STATS.npz.

\b
onnx-sipp calibrate in.onnx stats.npz --calib samples.npz
onnx-sipp in.onnx out.onnx --calib samples.npz --statistics stats.npz
onnx-sipp calibrate in.onnx sipp.npz --calib samples.npz --method sipp-hybrid
onnx-sipp in.onnx out.onnx --statistics sipp.npz --method sipp-hybrid --epsilon 2
"""


_SECTIONS = {
    "Samples": (
        "calib", "data_loader_script", "num_samples", "input_shapes", "mask_input", "states",
        "state_reset",
    ),
    "Layers": (
        "exclude_nodes", "exclude_op_types", "include_nodes", "include_op_types", "include_tied",
        "pattern",
    ),
    "Method": ("method", "seed"),
    "Result": ("quiet", "verbose", "log_file"),
    "Running": (
        "config_path", "threads", "batch_size", "memory_limit", "workdir", "scheduler", "providers",
        "custom_ops",
    ),
}  # fmt: skip


@click.command("calibrate", cls=GroupedCommand, sections=_SECTIONS, help=_HELP)
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@click.argument("target", metavar="STATS.npz", type=click.Path(path_type=Path))
@data_options
@click.option(
    "--method",
    type=click.Choice(list(METHODS)),
    metavar="NAME",
    help=f"That they are to serve: {', '.join(METHODS)}. [default: {DEFAULT_METHOD}]",
)
@click.option("--pattern", metavar="P", help="Only layers that it fits are measured.")
@exclusion_options
@config_option
@runtime_options
@log_options
def command(
    source: Path,
    target: Path,
    calib: Path | None,
    data_loader_script: str | None,
    config_path: Path | None,
    **options: Any,
) -> None:
    """Measure statistics; see `_HELP`."""
    from onnx_sipp.calibrating import calibrate  # noqa: PLC0415 - heavy; only once it is needed
    from onnx_sipp.graph.model import Model  # noqa: PLC0415

    places = {"calib": calib, "data_loader_script": data_loader_script}
    asked = request(config_path, options, places)
    said = {name: value for name, value in asked.options.items() if name not in PRUNE_ONLY}
    refuse_outputs([target, log_file()], [*Model.load(source).files, *asked.files])
    with listening() as bars:
        found = calibrate(source, asked.calibration(), progress=bars, **said)
    found.save(target)
    output_console().print(found)
