"""`onnx-sipp prune IN OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

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


@click.command("prune", help=_HELP)
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT.onnx", type=click.Path(path_type=Path))
@click.option(
    "--calib",
    "--load-inputs",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Sample inputs: .npz (one array per input), .npy, a folder of them, or "
    "test_data_set_* folders. Without it, test data beside the model, else made-up inputs.",
)
@click.option(
    "--data-loader-script",
    metavar="F.py[:FUNC]",
    help="Python function that yields {input name: array}; FUNC is load_data by default. "
    "The file is executed.",
)
@click.option(
    "--sparsity",
    type=float,
    metavar="S",
    help=f"Share of the prunable weights to make zero, met exactly. [default: {DEFAULT_SPARSITY}]",
)
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
@click.option("--delta", type=float, metavar="D", help="Failure probability of the certificate.")
@click.option(
    "--method",
    type=click.Choice(list(METHODS)),
    help=f"How weights are ranked or sampled. [default: {DEFAULT_METHOD}]",
)
@click.option(
    "--allocation",
    type=click.Choice([*REFIT_ALLOCATIONS, *ALLOCATIONS, "sipp"]),
    help="How the budget is shared among layers. [default: the method's own]",
)
@click.option(
    "--compensate",
    type=click.Choice(COMPENSATIONS),
    help="Refit the kept weights in graph order, layer by layer by itself, or not. "
    "[default: sequential with the default method, none with the others]",
)
@click.option("--rounds", type=int, metavar="R", help="Prune and refit in R steps. [default: 1]")
@click.option(
    "--new-biases/--no-new-biases",
    default=True,
    help="Let the refit add a bias to a Conv or Gemm that has none, where that helps, or keep "
    "every node as it is. [default: add]",
)
@click.option(
    "--floor",
    type=float,
    metavar="SHARE",
    help=f"Share of its weights that every layer keeps at least. [default: {FLOOR}]",
)
@click.option("--num-samples", type=int, metavar="N", help="Samples to use. [default: up to 512]")
@click.option(
    "--input-shapes",
    multiple=True,
    type=input_shape,
    metavar="NAME:D,D,…",
    help="Shape of made-up inputs, e.g. x:1,3,224,224. Repeat for more inputs.",
)
@exclusion_options
@report_options
@log_options
@click.option("--batch-size", type=int, metavar="N", help="Most samples at a time.")
@click.option("--threads", type=int, metavar="N", help="Threads. [default: all cores]")
@click.option(
    "--mask-input",
    metavar="NAME",
    help="Input that is 0 where the data is padding, which is kept out of the statistics. "
    "[default: attention_mask if there is one; '' for none]",
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=state_pair,
    metavar="IN=OUT",
    help="Feed output OUT back to input IN from one sample to the next. Repeat for more. "
    "[default: pairs like h0 and hn, state and stateN; '' for none]",
)
@click.option(
    "--state-reset",
    type=int,
    metavar="N",
    help="Samples in a sequence, at whose start states are reset. [default: those of a file]",
)
@click.option(
    "--memory-limit",
    type=byte_size,
    metavar="SIZE",
    help="Memory that the process may take, all in all, e.g. 2GB; what does not fit goes to files. "
    f"[default: {DEFAULT_LIMIT >> 20}MB]",
)
@click.option(
    "--workdir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for those files. [default: the system's temporary folder]",
)
@click.option(
    "--custom-ops",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="LIB",
    help="Library with operators that onnxruntime must load for the model; its code is executed. "
    "Repeat for more.",
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
@click.option("--providers", metavar="A,B", help="onnxruntime execution providers.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N")
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
