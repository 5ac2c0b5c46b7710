"""`onnx-sipp sweep IN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_sipp.choices import PRUNE_ONLY
from onnx_sipp.cli.config import config_option, request
from onnx_sipp.cli.goals import eval_script_option
from onnx_sipp.cli.help import GroupedCommand
from onnx_sipp.cli.logs import listening, log_file, log_options
from onnx_sipp.cli.output import as_file, deliver, refuse_outputs, write_text
from onnx_sipp.cli.run_options import (
    data_options,
    method_options,
    runtime_options,
    statistics_option,
)
from onnx_sipp.cli.shared import exclusion_options, json_option
from onnx_sipp.cli.values import shares

__all__ = ["command"]

_HELP = """
Prune IN.onnx at several sparsities, and show what each costs and brings. No model is written.

\b
onnx-sipp sweep in.onnx --calib samples.npz --sparsities 0.3,0.5,0.7,0.9 --html curve.html
onnx-sipp sweep in.onnx --calib samples.npz --eval-script judge.py:accuracy --csv curve.csv
onnx-sipp sweep in.onnx --calib samples.npz --per-layer

It calibrates once, on all but a fifth of the samples; that fifth tells the fidelity.
"""


_SECTIONS = {
    "Samples": (
        "calib", "data_loader_script", "num_samples", "input_shapes", "mask_input", "states",
        "state_reset", "statistics", "eval_script",
    ),
    "What to try": ("sparsities", "per_layer", "pattern"),
    "Layers": (
        "exclude_nodes", "exclude_op_types", "include_nodes", "include_op_types", "include_tied",
        "floor",
    ),
    "Method": (
        "method", "allocation", "compensate", "rounds", "new_biases", "delta", "seed",
    ),
    "Result": ("html_path", "csv_path", "json_path", "quiet", "verbose", "log_file"),
    "Running": (
        "config_path", "threads", "batch_size", "memory_limit", "workdir", "scheduler", "providers",
        "custom_ops",
    ),
}  # fmt: skip


@click.command("sweep", cls=GroupedCommand, sections=_SECTIONS, help=_HELP)
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@data_options
@statistics_option
@click.option("--sparsities", type=shares, metavar="S,…",
              help="Shares of zeros. [default: 0.3,0.5,0.6,0.7,0.8,0.9,0.95]")  # fmt: skip
@click.option(
    "--per-layer",
    is_flag=True,
    help="Prune each layer alone, and show the error at the outputs.",
)
@eval_script_option
@click.option(
    "--pattern",
    metavar="P",
    help="Blocks that zeros have to fill, RxC. [default: anywhere]",
)
@method_options
@exclusion_options
@config_option
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the table as CSV.")  # fmt: skip
@json_option("all")
@click.option("--html", "html_path", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the table and the curve as a page.")  # fmt: skip
@runtime_options
@log_options
def command(
    source: Path,
    calib: Path | None,
    data_loader_script: str | None,
    config_path: Path | None,
    sparsities: list[float] | None,
    per_layer: bool,
    eval_script: str | None,
    csv_path: Path | None,
    json_path: Path | None,
    html_path: Path | None,
    **options: Any,
) -> None:
    """Show what every sparsity costs; see `_HELP`."""
    from onnx_sipp.graph.model import Model  # noqa: PLC0415 - heavy; only once there is work to do
    from onnx_sipp.report.sweep import print_sweep  # noqa: PLC0415
    from onnx_sipp.report.sweep_html import sweep_html  # noqa: PLC0415
    from onnx_sipp.sweeping.sweep import SPARSITIES, sweep  # noqa: PLC0415

    outputs = [csv_path, as_file(json_path), html_path, log_file()]
    places = {"calib": calib, "data_loader_script": data_loader_script}
    asked = request(config_path, options, places)
    said = {name: value for name, value in asked.options.items() if name not in PRUNE_ONLY}
    refuse_outputs(outputs, [*Model.load(source).files, *asked.files])
    with listening() as bars:
        found = sweep(
            source,
            asked.calibration(),
            sparsities=SPARSITIES if sparsities is None else sparsities,
            per_layer=per_layer,
            metric=eval_script,
            progress=bars,
            **said,
        )
    if csv_path is not None:
        write_text(csv_path, found.to_csv())
    if html_path is not None:
        write_text(html_path, sweep_html(found))
    deliver(json_path, found.to_json, lambda console: print_sweep(found, console))
