"""`onnx-sipp sweep IN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_sipp.cli.goals import eval_script_option
from onnx_sipp.cli.help import GroupedCommand
from onnx_sipp.cli.logs import listening, log_file, log_options
from onnx_sipp.cli.run_options import (
    data_options,
    method_options,
    run_options,
    runtime_options,
)
from onnx_sipp.cli.shared import (
    as_file,
    deliver,
    exclusion_options,
    json_option,
    open_calibration,
    refuse_outputs,
    shares,
    write_text,
)

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
        "state_reset", "eval_script",
    ),
    "What to try": ("sparsities", "per_layer", "pattern"),
    "Layers": ("exclude_nodes", "exclude_op_types", "include_tied", "floor"),
    "Method": (
        "method", "allocation", "compensate", "rounds", "new_biases", "delta", "seed",
    ),
    "Result": ("html_path", "csv_path", "json_path", "quiet", "verbose", "log_file"),
    "Running": ("threads", "batch_size", "memory_limit", "workdir", "providers", "custom_ops"),
}  # fmt: skip


@click.command("sweep", cls=GroupedCommand, sections=_SECTIONS, help=_HELP)
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@data_options
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
    sparsities: list[float] | None,
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
    refuse_outputs(outputs, [*Model.load(source).files, calib])
    with listening() as bars:
        found = sweep(
            source,
            open_calibration(calib, data_loader_script),
            sparsities=SPARSITIES if sparsities is None else sparsities,
            metric=eval_script,
            progress=bars,
            **run_options(options),
        )
    if csv_path is not None:
        write_text(csv_path, found.to_csv())
    if html_path is not None:
        write_text(html_path, sweep_html(found))
    deliver(json_path, found.to_json, lambda console: print_sweep(found, console))
