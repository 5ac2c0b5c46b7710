"""`onnx-sipp prune IN OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_sipp.cli.help import GroupedCommand
from onnx_sipp.cli.logs import listening, log_file, log_options
from onnx_sipp.cli.results import Destination, report_options
from onnx_sipp.cli.shared import (
    byte_size,
    exclusion_options,
    input_shape,
    open_calibration,
    pack_values_option,
    refuse_outputs,
    state_map,
    state_pair,
)
from onnx_sipp.memory import DEFAULT_LIMIT
from onnx_sipp.options import COMPENSATIONS, DEFAULT_METHOD, DEFAULT_SPARSITY, STORAGES
from onnx_sipp.pruning.error_budget import FLOOR
from onnx_sipp.pruning.methods import METHODS, REFIT_ALLOCATIONS
from onnx_sipp.pruning.selection import ALLOCATIONS

__all__ = ["command"]


_HELP = """
Prune IN.onnx and write OUT.onnx, with a report of what was lost and what is guaranteed.

\b
onnx-sipp in.onnx out.onnx --calib samples.npz --sparsity 0.7
onnx-sipp in.onnx out.onnx --data-loader-script data.py --method sipp-hybrid
onnx-sipp in.onnx out.onnx --calib samples/ --epsilon 0.5 --delta 1e-3
onnx-sipp in.onnx out.onnx --calib samples.npz --pattern channels --macs 0.5
"""


_SECTIONS = {
    "Samples": (
        "calib", "data_loader_script", "num_samples", "input_shapes", "mask_input", "states",
        "state_reset",
    ),
    "Goal": ("sparsity", "pattern", "macs", "latency", "align", "epsilon", "delta"),
    "Layers": ("exclude_nodes", "exclude_op_types", "include_tied", "floor"),
    "Method": ("method", "allocation", "compensate", "rounds", "new_biases", "seed"),
    "Result": ("storage", "pack_values", "reports", "json_path", "quiet", "verbose", "log_file"),
    "Running": ("threads", "batch_size", "memory_limit", "workdir", "providers", "custom_ops"),
}  # fmt: skip


@click.command("prune", cls=GroupedCommand, sections=_SECTIONS, help=_HELP)
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT.onnx", type=click.Path(path_type=Path))
@click.option(
    "--calib",
    "--load-inputs",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Sample inputs: .npz, .npy, a folder of them, or ONNX test data. "
    "[default: test data beside the model, else made-up inputs]",
)
@click.option(
    "--data-loader-script",
    metavar="FILE",
    help="Python file with load_data(), or FILE:FUNC; it is run.",
)
@click.option(
    "--sparsity",
    type=float,
    metavar="S",
    help=f"Share of prunable weights to make zero, met exactly. [default: {DEFAULT_SPARSITY}]",
)
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
@click.option("--delta", type=float, metavar="D", help="Failure probability of the certificate.")
@click.option(
    "--method",
    type=click.Choice(list(METHODS)),
    metavar="NAME",
    help=f"Choice of weights: {', '.join(METHODS)}. [default: {DEFAULT_METHOD}]",
)
@click.option(
    "--allocation",
    type=click.Choice([*REFIT_ALLOCATIONS, *ALLOCATIONS, "sipp"]),
    metavar="NAME",
    help="Budget of the layers: "
    f"{', '.join([*REFIT_ALLOCATIONS, *ALLOCATIONS, 'sipp'])}. [default: the method's own]",
)
@click.option(
    "--compensate",
    type=click.Choice(COMPENSATIONS),
    metavar="HOW",
    help=f"Refit: {', '.join(COMPENSATIONS)}. [default: as fits the method]",
)
@click.option("--rounds", type=int, metavar="R", help="Prune and refit in R steps. [default: 1]")
@click.option(
    "--new-biases/--no-new-biases",
    default=True,
    help="Let the refit add biases to nodes that have none. [default: it may]",
)
@click.option(
    "--floor",
    type=float,
    metavar="SHARE",
    help=f"Share of its weights that every layer keeps. [default: {FLOOR}]",
)
@click.option("--num-samples", type=int, metavar="N", help="Samples to use. [default: up to 512]")
@click.option(
    "--input-shapes",
    multiple=True,
    type=input_shape,
    metavar="NAME:D,D,…",
    help="Shape of made-up inputs, e.g. x:1,3,224,224; repeatable.",
)
@exclusion_options
@report_options
@log_options
@click.option("--batch-size", type=int, metavar="N", help="Most samples at a time.")
@click.option("--threads", type=int, metavar="N", help="Threads. [default: all cores]")
@click.option(
    "--mask-input",
    metavar="NAME",
    help="Input that is 0 at padding. [default: attention_mask]",
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=state_pair,
    metavar="IN=OUT",
    help="Feed output OUT back to input IN; repeatable. [default: by names]",
)
@click.option(
    "--state-reset",
    type=int,
    metavar="N",
    help="Samples between resets of the states. [default: those of a file]",
)
@click.option(
    "--memory-limit",
    type=byte_size,
    metavar="SIZE",
    help=f"Memory that the process may take. [default: {DEFAULT_LIMIT >> 20}MB]",
)
@click.option(
    "--workdir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for temporary files. [default: that of the system]",
)
@click.option(
    "--custom-ops",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="LIB",
    help="Library with operators of your own; it is run. Repeatable.",
)
@click.option(
    "--storage",
    type=click.Choice(STORAGES),
    default=STORAGES[0],
    show_default=True,
    help="Weights with their zeros, or without, smaller.",
)
@pack_values_option
@click.option("--providers", metavar="A,B", help="onnxruntime execution providers.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N",
              help="Of everything random.")  # fmt: skip
def command(
    source: Path,
    target: Path,
    calib: Path | None,
    data_loader_script: str | None,
    json_path: Path | None,
    reports: tuple[Path, ...],
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...],
    providers: str | None,
    states: tuple[tuple[str, str], ...],
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
            input_shapes=dict(input_shapes),
            providers=providers.split(",") if providers else None,
            states=state_map(states),
            **options,
        )
    report = result.save(target)
    destination.deliver(report)
