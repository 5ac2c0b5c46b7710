"""What a run prints in the terminal."""

from __future__ import annotations

from math import isnan

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from onnx_sipp.inspection import Inspection
from onnx_sipp.report.cut_summary import SMALLER, add_cut_rows, group_table
from onnx_sipp.report.packing import packing_sentence
from onnx_sipp.report.result import LayerReport, Report, SkippedReport
from onnx_sipp.report.search import search_table

__all__ = ["print_inspection", "print_report"]

_HONEST = (
    "What the zeros buy: stock runtimes (onnxruntime, OpenVINO) multiply zeros as fast as any "
    "other number, so this file is neither smaller nor faster by itself. It shrinks when it is "
    "compressed (zip, zstd, a package or an app store do that), and it runs faster only on "
    "runtimes with kernels for unstructured sparsity."
)
_PACKED = (
    "What the zeros buy: the file is smaller, because the weights are stored without them and "
    "rebuilt when the model is loaded. Stock runtimes (onnxruntime, OpenVINO) then multiply zeros "
    "as fast as any other number, so it is not faster by itself."
)

_FOR_CORES = (
    "What the zeros buy: TensorRT runs such layers on sparse tensor cores (NVIDIA Ampere and "
    "later, trtexec --sparsity=enable) where it measures them to be faster, which takes some "
    "hundred channels. Other stock runtimes multiply zeros as fast as any other number."
)
_FOR_PATTERNS = (
    "What the zeros buy: stock runtimes (onnxruntime, OpenVINO, TensorRT) multiply these zeros as "
    "fast as any other number. The pattern is for runtimes with kernels made for it."
)


def print_report(report: Report, console: Console) -> None:
    """Print the layers, the totals, the certificate, the fidelity and what the zeros buy.

    Args:
        report: of the run.
        console: to print on.
    """
    if report.cut is not None:
        console.print(group_table(report.cut))
    else:
        console.print(_layer_table(report.layers))
    _print_skipped(report.skipped, console)
    if report.search is not None:
        console.print(search_table(report.search))
    console.print(_totals(report))
    console.print(_outputs(report))
    for warning in report.warnings:
        console.print(Text(f"Warning: {warning}", style="bold yellow"))
    if report.cut is not None:
        console.print(SMALLER)
        return
    console.print(_certificate_sentence(report))
    if report.packing is not None:
        console.print(packing_sentence(report.packing))
    if report.options["pattern"]:
        console.print(_sparse_cores(report))
    else:
        console.print(_HONEST if report.packing is None else _PACKED)


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print what can be pruned, and what cannot and why."""
    table = Table(
        *_folded("layer", "op", "weight", "route"), title="Prunable layers", title_justify="left"
    )
    for title in ("shape", "groups × neurons × fan-in", "zeros"):
        table.add_column(title, justify="right")
    for layer in inspection.layers:
        table.add_row(
            escape(layer.name),
            layer.op_type,
            escape(layer.weight),
            layer.route + _also_read(layer.also_read_by),
            _shape(layer.shape),
            f"{layer.groups} × {layer.neurons} × {layer.fan_in}",
            f"{layer.zeros / layer.parameters:.1%}",
        )
    console.print(table)
    _print_skipped(inspection.skipped, console)
    console.print(
        f"{inspection.prunable:,} of {inspection.parameters:,} parameters ({inspection.share:.1%}) "
        f"in {len(inspection.layers)} layers can be pruned."
    )


def _also_read(others: str) -> str:
    return f"; also read by {escape(others)}" if others else ""


def _sparse_cores(report: Report) -> str:
    """Which layers sparse tensor cores can run, why not the others, and what that takes."""
    layers = report.layers
    able = sum(layer.no_sparse_cores == "" for layer in layers)
    reasons: dict[str, list[str]] = {}
    for layer in layers:
        if layer.no_sparse_cores:
            reasons.setdefault(layer.no_sparse_cores, []).append(layer.name)
    told = "".join(f"\n  not {escape(', '.join(names))}: {why}" for why, names in reasons.items())
    buys = _FOR_CORES if able else _FOR_PATTERNS
    return f"Sparse tensor cores can run {able} of {len(layers)} layers.{told}\n{buys}"


def _layer_table(layers: list[LayerReport]) -> Table:
    table = Table(*_folded("layer", "op"), title="Layers", title_justify="left")
    refitted = any(layer.candidate for layer in layers)
    chosen = "chosen by" if refitted else "sampled"
    for title in ("shape", "sparsity", "ε median", "ε worst", chosen, "measured error"):
        table.add_column(title, justify="right")
    for layer in layers:
        name = escape(layer.name)
        if layer.shares_weight_with:
            name += f" (weight of {escape(layer.shares_weight_with)})"
        table.add_row(
            name,
            layer.op_type,
            _shape(layer.shape),
            f"{layer.sparsity:.1%}",
            f"{layer.epsilon_median:.2g}",
            f"{layer.epsilon_worst:.2g}",
            layer.candidate if refitted else f"{layer.sampled_halves}/{layer.halves}",
            "not seen" if isnan(layer.measured_error) else f"{layer.measured_error:.3g}",
        )
    return table


def _print_skipped(skipped: list[SkippedReport], console: Console) -> None:
    if not skipped:
        return
    table = Table(*_folded("left alone", "op"), title="Left alone", title_justify="left")
    table.add_column("parameters", justify="right")
    table.add_column("why")
    for skip in skipped:
        size = f"{skip.parameters:,}" if skip.parameters else ""
        table.add_row(escape(skip.name), skip.op_type, size, escape(skip.reason))
    console.print(table)


def _totals(report: Report) -> Table:
    table = Table(show_header=False, title="Totals", title_justify="left")
    of_all = report.zeros / report.parameters if report.parameters else 0
    if report.cut is not None:
        add_cut_rows(report.cut, table)
    else:
        table.add_row("zeros among prunable weights", f"{report.zeros:,} of {report.prunable:,}"
                      f" ({report.sparsity:.2%})")  # fmt: skip
        table.add_row("of all parameters", f"{of_all:.2%} of {report.parameters:,}")
    if report.bytes_before is not None:
        table.add_row("file before", f"{report.bytes_before:,} bytes")
    if report.bytes_after is not None:
        table.add_row("file after", f"{report.bytes_after:,} bytes")
    data = report.calibration
    samples = f"{data.samples}, and {data.held_out} held out"
    table.add_row("calibrated on", f"{escape(data.source)}: {samples}")
    options = report.options
    budget = f"budget {options['allocation']}"
    if ":" in options["pattern"]:
        budget = "the same share of every layer"
    if options["epsilon"] is not None:
        budget = f"as far as every ε stays at most {options['epsilon']:g}"
    elif report.budget:
        budget = f"budget {report.budget}"
    if report.budgets:
        errors = ", ".join(f"{name} {error:.4f}" for name, error in report.budgets.items())
        budget = f"budget {report.budget} (measured error: {errors})"
    table.add_row("method", f"{options['method']}, {budget}")
    if options["pattern"]:
        table.add_row("pattern", options["pattern"])
    if options["compensate"] != "none":
        table.add_row("kept weights", f"refitted, {options['compensate']}")
    added = [layer.name for layer in report.layers if layer.bias_is_new]
    if added:
        table.add_row("biases added", escape(", ".join(added)))
    if report.freed:
        table.add_row("dead paths", _freed(report))
    table.add_row("time", f"{report.seconds:.1f} s")
    return table


def _freed(report: Report) -> str:
    """How many weights did nothing, where, and what it was worth to spend them again."""
    layers = [layer for layer in report.layers if layer.freed and not layer.shares_weight_with]
    most = sorted(layers, key=lambda layer: -layer.freed)[:3]
    where = ", ".join(f"{escape(layer.name)} {layer.freed:,}" for layer in most)
    rest = f" and {len(layers) - len(most)} more" if len(layers) > len(most) else ""
    first, last = report.freed_errors[0], report.freed_errors[-1]
    return (
        f"{report.freed:,} weights that did nothing made room for others ({where}{rest}): "
        f"output error {first:.4f}, then {last:.4f}"
    )


def _outputs(report: Report) -> Table:
    title = "Fidelity to the dense model on held-out samples"
    table = Table("output", title=title, title_justify="left")
    for column in ("relative error", "cosine", "top-1 agreement"):
        table.add_column(column, justify="right")
    for output in report.outputs:
        agreement = output.top1_agreement
        table.add_row(
            escape(output.name) + (f" ({escape(output.note)})" if output.note else ""),
            "" if output.relative_error is None else f"{output.relative_error:.4g}",
            "" if output.cosine is None else f"{output.cosine:.5f}",
            "" if agreement is None else f"{agreement:.1%}",
        )
    return table


def _certificate_sentence(report: Report) -> str:
    data = report.calibration
    return (
        "What is guaranteed: ε bounds the relative error of the positive and the negative part of "
        f"each neuron's sum on a fresh input (δ = {data.delta:g}, if at least "
        f"{data.samples_needed} samples are used; {data.samples_certified} were). An ε of 1 or "
        "more promises nothing, and carried through a deep network such bounds are vacuous: trust "
        "the measured errors beside them."
    )


def _folded(*titles: str) -> list[Column]:
    """Columns for names, which are broken rather than cut: people copy them."""
    return [Column(title, overflow="fold") for title in titles]


def _shape(shape: list[int]) -> str:
    return "×".join(map(str, shape))
