"""`onnx-sipp prune IN OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_sipp.cli.goals import goal_options
from onnx_sipp.cli.help import GroupedCommand
from onnx_sipp.cli.logs import listening, log_file, log_options
from onnx_sipp.cli.results import Destination, report_options
from onnx_sipp.cli.run_options import (
    data_options,
    method_options,
    run_options,
    runtime_options,
)
from onnx_sipp.cli.shared import (
    exclusion_options,
    open_calibration,
    pack_values_option,
    refuse_outputs,
)
from onnx_sipp.options import DEFAULT_SPARSITY, STORAGES

__all__ = ["command"]


_HELP = """
Prune IN.onnx and write OUT.onnx, with a report of what was lost and what is guaranteed.

\b
onnx-sipp in.onnx out.onnx --calib samples.npz --sparsity 0.7
onnx-sipp in.onnx out.onnx --calib samples.npz --min-agreement 0.99
onnx-sipp in.onnx out.onnx --calib samples.npz --max-drop 0.01 --eval-script judge.py:accuracy
onnx-sipp in.onnx out.onnx --data-loader-script data.py --method sipp-hybrid
onnx-sipp in.onnx out.onnx --calib samples/ --epsilon 0.5 --delta 1e-3
onnx-sipp in.onnx out.onnx --calib samples.npz --pattern channels --macs 0.5
"""


_SECTIONS = {
    "Samples": (
        "calib", "data_loader_script", "num_samples", "input_shapes", "mask_input", "states",
        "state_reset",
    ),
    "Goal": (
        "sparsity", "max_error", "min_agreement", "max_drop", "eval_script", "epsilon", "delta",
        "pattern", "macs", "latency", "align",
    ),
    "Layers": ("exclude_nodes", "exclude_op_types", "include_tied", "floor"),
    "Method": ("method", "allocation", "compensate", "rounds", "new_biases", "seed"),
    "Result": ("storage", "pack_values", "reports", "json_path", "quiet", "verbose", "log_file"),
    "Running": ("threads", "batch_size", "memory_limit", "workdir", "providers", "custom_ops"),
}  # fmt: skip


@click.command("prune", cls=GroupedCommand, sections=_SECTIONS, help=_HELP)
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT.onnx", type=click.Path(path_type=Path))
@data_options
@click.option(
    "--sparsity",
    type=float,
    metavar="S",
    help=f"Share of prunable weights to make zero, met exactly. [default: {DEFAULT_SPARSITY}]",
)
@goal_options
@click.option(
    "--pattern",
    metavar="P",
    help="Zeros in N:M (2:4 for sparse tensor cores), in RxC blocks, or channels, "
    "which are cut out of the graph. [default: anywhere]",
)
@click.option(
    "--macs",
    type=float,
    metavar="SHARE",
    help="With channels, instead: share of the multiply-adds that stays.",
)
@click.option(
    "--latency",
    type=float,
    metavar="SHARE",
    help="With channels, instead: share of the measured time that stays.",
)
@click.option(
    "--align",
    type=int,
    metavar="N",
    help="With channels: keep multiples of N. [default: 16, 8 or 4]",
)
@click.option(
    "--epsilon",
    type=float,
    metavar="E",
    help="Instead: as far as every certified ε stays at most E.",
)
@method_options
@exclusion_options
@report_options
@log_options
@click.option(
    "--storage",
    type=click.Choice(STORAGES),
    default=STORAGES[0],
    show_default=True,
    help="Weights with their zeros, or without, smaller.",
)
@pack_values_option
@runtime_options
def command(
    source: Path,
    target: Path,
    calib: Path | None,
    data_loader_script: str | None,
    json_path: Path | None,
    reports: tuple[Path, ...],
    **options: Any,
) -> None:
    """Prune IN.onnx and write OUT.onnx; see `_HELP`."""
    from onnx_sipp.graph.model import Model  # noqa: PLC0415 - heavy; only once there is work to do
    from onnx_sipp.pipeline import prune  # noqa: PLC0415

    model = Model.load(source)
    model.refuse_target(target)
    destination = Destination(json_path, reports)
    refuse_outputs([target, *destination.files, log_file()], [*model.files, calib])
    calibration = open_calibration(calib, data_loader_script)
    with listening() as bars:
        result = prune(
            source,
            calibration,
            progress=bars,
            **run_options(options),
        )
    report = result.save(target)
    destination.deliver(report)
