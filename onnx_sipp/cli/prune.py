"""`onnx-sipp prune IN OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_sipp.choices import DEFAULT_SPARSITY, QUANTIZATIONS, STORAGES
from onnx_sipp.cli.config import config_option, request, write_config_option
from onnx_sipp.cli.drop import DropLimit
from onnx_sipp.cli.goals import goal_options
from onnx_sipp.cli.help import GroupedCommand
from onnx_sipp.cli.logs import listening, log_file, log_options
from onnx_sipp.cli.output import refuse_outputs, write_text
from onnx_sipp.cli.results import Destination, report_options
from onnx_sipp.cli.run_options import (
    data_options,
    method_options,
    runtime_options,
    statistics_option,
)
from onnx_sipp.cli.shared import exclusion_options, pack_values_option
from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.files import refuse_full

__all__ = ["command"]


_HELP = """
Prune IN.onnx and write OUT.onnx, with a report of what was lost and what is guaranteed.

\b
onnx-sipp in.onnx out.onnx --calib samples.npz --sparsity 0.7
onnx-sipp in.onnx out.onnx --calib samples.npz --min-agreement 0.99
onnx-sipp in.onnx out.onnx --calib samples.npz --max-drop 0.01 --eval-script judge.py:accuracy
onnx-sipp in.onnx out.onnx --data-loader-script data.py --method sipp-hybrid --epsilon 0.5
onnx-sipp in.onnx out.onnx --calib samples.npz --pattern channels --macs 0.5
"""


_SECTIONS = {
    "Samples": (
        "calib", "data_loader_script", "num_samples", "input_shapes", "mask_input", "states",
        "state_reset", "statistics",
    ),
    "Goal": (
        "sparsity", "max_error", "min_agreement", "max_drop", "eval_script", "epsilon", "delta",
        "pattern", "macs", "latency", "align", "masks",
    ),
    "Layers": (
        "exclude_nodes", "exclude_op_types", "include_nodes", "include_op_types", "include_tied",
        "floor",
    ),
    "Method": ("method", "allocation", "compensate", "rounds", "new_biases", "seed"),
    "Result": (
        "quantize", "storage", "pack_values", "masks_path", "reports", "json_path",
        "fail_if_drop", "quiet", "verbose", "log_file",
    ),
    "Running": (
        "config_path", "write_config", "threads", "batch_size", "memory_limit", "workdir",
        "scheduler", "providers", "custom_ops",
    ),
}  # fmt: skip


@click.command("prune", cls=GroupedCommand, sections=_SECTIONS, help=_HELP)
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT.onnx", type=click.Path(path_type=Path))
@data_options
@statistics_option
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
    help="Zeros in N:M (2:4), RxC, or channels, cut out. [default: anywhere]",
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
@click.option(
    "--apply-masks",
    "masks",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Instead: keep what masks say, as --masks writes them, and refit it.",
)
@method_options
@exclusion_options
@report_options
@click.option("--masks", "masks_path", type=click.Path(path_type=Path), metavar="FILE",
              help="Write which weights were kept, by layer name, as .npz.")  # fmt: skip
@click.option(
    "--fail-if-drop",
    type=float,
    metavar="D",
    help="Exit with code 3 if what --eval-script gives is more than D lower.",
)
@log_options
@click.option(
    "--quantize",
    type=click.Choice(QUANTIZATIONS),
    metavar="KIND",
    help="Then into integers, by onnxruntime's quantiser: int8 or int8-dynamic.",
)
@click.option(
    "--storage",
    type=click.Choice(STORAGES),
    default=STORAGES[0],
    show_default=True,
    help="Weights with their zeros, or without, smaller.",
)
@pack_values_option
@config_option
@write_config_option
@runtime_options
def command(
    source: Path,
    target: Path,
    calib: Path | None,
    data_loader_script: str | None,
    config_path: Path | None,
    write_config: Path | None,
    json_path: Path | None,
    reports: tuple[Path, ...],
    masks_path: Path | None,
    fail_if_drop: float | None,
    **options: Any,
) -> None:
    """Prune IN.onnx and write OUT.onnx; see `_HELP`."""
    from onnx_sipp.graph.model import Model  # noqa: PLC0415 - heavy; only once there is work to do
    from onnx_sipp.masks import refuse_names  # noqa: PLC0415
    from onnx_sipp.pipeline import prune  # noqa: PLC0415

    places = {"calib": calib, "data_loader_script": data_loader_script}
    asked = request(config_path, options, places)
    limit = DropLimit.of(fail_if_drop, asked.options)
    checked = asked.checked()
    if masks_path is not None and checked.pattern == "channels":
        raise UsageError("--pattern channels leaves no zeros, so there are no masks to write")
    model = Model.load(source)
    model.refuse_target(target)
    destination = Destination(json_path, reports)
    smaller = checked.quantize or checked.pattern == "channels" or checked.storage != STORAGES[0]
    if not smaller:
        refuse_full(target.parent, model.bytes_on_disk() or 0)
    written = [target, *destination.files, write_config, masks_path, log_file()]
    refuse_outputs(written, [*model.files, *asked.files])
    with listening() as bars:
        result = prune(source, asked.calibration(), progress=bars, **asked.options)
    if masks_path is not None:
        refuse_names(result.masks)
    report = result.save(target)
    try:
        if masks_path is not None:
            result.save_masks(masks_path)
        if write_config is not None:
            write_text(write_config, asked.written(write_config))
        destination.deliver(report)
    except SippError as error:
        raise SippError(f"{error} ({str(target)!r} was written before, and is whole)") from error
    if limit is not None:
        limit.check(source, target, checked)
