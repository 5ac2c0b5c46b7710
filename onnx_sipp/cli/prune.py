"""`onnx-sipp prune IN OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_sipp.cli.config import config_option, request, write_config_option
from onnx_sipp.cli.drop import DropLimit
from onnx_sipp.cli.goals import goal_options
from onnx_sipp.cli.run_options import (
    data_options,
    method_options,
    runtime_options,
)
from onnx_sipp.cli.shared import (
    exclusion_options,
    output_console,
    pack_values_option,
    refuse_outputs,
    write_text,
)
from onnx_sipp.errors import UsageError
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


@click.command("prune", help=_HELP)
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT.onnx", type=click.Path(path_type=Path))
@data_options
@click.option(
    "--sparsity",
    type=float,
    metavar="S",
    help=f"Share of the prunable weights to make zero, met exactly. [default: {DEFAULT_SPARSITY}]",
)
@goal_options
@click.option(
    "--pattern",
    metavar="P",
    help="Where zeros may lie: N:M keeps N of every M weights along the input channels (2:4 for "
    "sparse tensor cores; the sparsity follows), RxC drops blocks of R output by C input channels; "
    "channels cuts whole channels, hidden units and heads out of the graph. [default: anywhere]",
)
@click.option(
    "--macs",
    type=float,
    metavar="SHARE",
    help="With --pattern channels, instead of --sparsity: share of the multiply-adds that stays.",
)
@click.option(
    "--latency",
    type=float,
    metavar="SHARE",
    help="With --pattern channels, instead of --sparsity: share of the time that a run in "
    "onnxruntime takes, measured here.",
)
@click.option(
    "--align",
    type=int,
    metavar="N",
    help="With --pattern channels: keep multiples of N channels. [default: 16, which onnxruntime "
    "is fast at; 8 or 4 in groups of less than 64 or 32]",
)
@click.option(
    "--epsilon",
    type=float,
    metavar="E",
    help="Instead: prune as far as the certified relative error of every neuron half stays <= E.",
)
@method_options
@exclusion_options
@click.option("--json", "json_path", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the report as JSON.")  # fmt: skip
@click.option("--masks", "masks_path", type=click.Path(path_type=Path), metavar="FILE.npz",
              help="Write which weights were kept, by layer name.")  # fmt: skip
@click.option(
    "--fail-if-drop",
    type=float,
    metavar="D",
    help="With --eval-script, for pipelines: write everything, but exit with code 3 if its number "
    "is more than D below that of IN.onnx.",
)
@click.option(
    "--storage",
    type=click.Choice(STORAGES),
    default=STORAGES[0],
    show_default=True,
    help="Store weights with their zeros, or packed: without, in a smaller file, to be rebuilt "
    "when the model is loaded.",
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
    masks_path: Path | None,
    fail_if_drop: float | None,
    **options: Any,
) -> None:
    """Prune IN.onnx and write OUT.onnx; see `_HELP`."""
    from onnx_sipp.cli.progress import Bars  # noqa: PLC0415 - heavy; only once there is work to do
    from onnx_sipp.graph.model import Model  # noqa: PLC0415
    from onnx_sipp.pipeline import prune  # noqa: PLC0415
    from onnx_sipp.report.summary import print_report  # noqa: PLC0415

    places = {"calib": calib, "data_loader_script": data_loader_script}
    asked = request(config_path, options, places)
    limit = DropLimit.of(fail_if_drop, asked.options)
    checked = asked.checked()
    if masks_path is not None and checked.pattern == "channels":
        raise UsageError("--pattern channels leaves no zeros, so there are no masks to write")
    model = Model.load(source)
    model.refuse_target(target)
    refuse_outputs([target, json_path, write_config, masks_path], [*model.files, *asked.files])
    with Bars() as bars:
        result = prune(source, asked.calibration(), progress=bars, **asked.options)
    report = result.save(target)
    if masks_path is not None:
        result.save_masks(masks_path)
    if write_config is not None:
        write_text(write_config, asked.written(write_config))
    if json_path is not None:
        write_text(json_path, report.to_json())
    print_report(report, output_console())
    if limit is not None:
        limit.check(source, target, checked)
