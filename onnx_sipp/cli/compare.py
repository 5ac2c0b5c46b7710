"""`onnx-sipp compare DENSE PRUNED`."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_sipp.cli.goals import eval_script_option
from onnx_sipp.cli.help import GroupedCommand
from onnx_sipp.cli.logs import listening, log_file, log_options
from onnx_sipp.cli.output import as_file, deliver, refuse_outputs, write_text
from onnx_sipp.cli.shared import json_option, open_calibration
from onnx_sipp.cli.values import input_shape, numbers, state_map, state_pair

__all__ = ["command"]


_HELP = """
Compare two models: outputs, sizes, loading, memory and latency, side by side.

\b
onnx-sipp compare in.onnx out.onnx --data test.npz
onnx-sipp compare in.onnx out.onnx --data test.npz --eval-script judge.py:accuracy --html both.html

Latency is that of onnxruntime, the models taking turns.
"""

_SECTIONS = {
    "Samples": (
        "data", "data_loader_script", "num_samples", "input_shapes", "states", "eval_script",
    ),
    "Latency": ("batch_sizes", "threads", "seconds"),
    "Result": ("html_path", "json_path", "quiet", "verbose", "log_file"),
    "Running": ("providers", "custom_ops"),
}  # fmt: skip


@click.command("compare", cls=GroupedCommand, sections=_SECTIONS, help=_HELP)
@click.argument("dense", metavar="DENSE.onnx", type=click.Path(path_type=Path))
@click.argument("pruned", metavar="PRUNED.onnx", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "--calib",
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
@eval_script_option
@click.option("--batch-sizes", type=numbers, default="1,16", show_default=True, metavar="N,…",
              help="Samples per run for latency.")  # fmt: skip
@click.option("--threads", type=numbers, metavar="N,…",
              help="Threads for latency. [default: 1, and all cores]")  # fmt: skip
@click.option(
    "--seconds",
    type=float,
    default=2.0,
    show_default=True,
    metavar="S",
    help="For each measurement of latency; 0 for none.",
)
@click.option("--num-samples", type=int, metavar="N", help="Samples to use. [default: all]")
@click.option(
    "--input-shapes",
    multiple=True,
    type=input_shape,
    metavar="NAME:D,D,…",
    help="Shape of made-up inputs, e.g. x:1,3,224,224; repeatable.",
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=state_pair,
    metavar="IN=OUT",
    help="Feed output OUT back to input IN; repeatable.",
)
@click.option("--custom-ops", multiple=True, type=click.Path(path_type=Path), metavar="LIB",
              help="Library with operators of your own; it is run. Repeatable.")  # fmt: skip
@click.option("--providers", metavar="A,B", help="onnxruntime execution providers.")
@json_option("the same")
@click.option("--html", "html_path", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the same as a page.")  # fmt: skip
@log_options
def command(
    dense: Path,
    pruned: Path,
    data: Path | None,
    data_loader_script: str | None,
    eval_script: str | None,
    batch_sizes: list[int],
    threads: list[int] | None,
    seconds: float,
    num_samples: int | None,
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...],
    states: tuple[tuple[str, str], ...],
    custom_ops: tuple[Path, ...],
    providers: str | None,
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """Compare two models; see `_HELP`."""
    from onnx_sipp.comparing.compare import compare  # noqa: PLC0415 - heavy; only once needed
    from onnx_sipp.graph.model import Model  # noqa: PLC0415
    from onnx_sipp.report.comparison import print_comparison  # noqa: PLC0415
    from onnx_sipp.report.comparison_html import comparison_html  # noqa: PLC0415

    read = [*Model.load(dense).files, *Model.load(pruned).files, data]
    refuse_outputs([as_file(json_path), html_path, log_file()], read)
    with listening() as bars:
        found = compare(
            dense,
            pruned,
            open_calibration(data, data_loader_script),
            metric=eval_script,
            batch_sizes=batch_sizes,
            threads=threads,
            seconds=seconds,
            num_samples=num_samples,
            input_shapes=dict(input_shapes),
            states=state_map(states),
            providers=providers.split(",") if providers else None,
            custom_ops=custom_ops,
            progress=bars,
        )
    if html_path is not None:
        write_text(html_path, comparison_html(found))
    deliver(json_path, found.to_json, lambda console: print_comparison(found, console))
