"""What a run prints in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan

from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

from onnx_sipp.inspection import Inspection
from onnx_sipp.report.advice import guaranteed, sparse_cores, zeros_buy
from onnx_sipp.report.cut_summary import group_table
from onnx_sipp.report.names import shown, visible
from onnx_sipp.report.packing import packing_sentence
from onnx_sipp.report.quantizing import quantizing_sentence
from onnx_sipp.report.result import LayerReport, Report, SkippedReport
from onnx_sipp.report.search import search_table
from onnx_sipp.report.totals import total_rows

__all__ = ["print_inspection", "print_report", "report_parts"]

# Of nodes that are left alone for the same reason.
_NAMED = 3


def print_report(report: Report, console: Console) -> None:
    """Print the layers, the totals, the certificate, the fidelity and what the zeros buy.

    Args:
        report: of the run.
        console: to print on.
    """
    for part in report_parts(report):
        console.print(part)


def report_parts(report: Report) -> Iterator[RenderableType]:
    """The same piece by piece."""
    yield _layer_table(report.layers) if report.cut is None else group_table(report.cut)
    if report.skipped:
        yield _skipped_table(_alike(report.skipped))
    if report.search is not None:
        yield search_table(report.search)
    yield _totals(report)
    yield _outputs(report)
    for warning in report.warnings:
        yield Text(visible(f"Warning: {warning}", "\n"), style="bold yellow")
    if report.cut is None:
        yield guaranteed(report)
    if report.quantization is not None:
        yield shown(quantizing_sentence(report.quantization))
    if report.packing is not None:
        yield packing_sentence(report.packing)
    if report.cut is None and report.options["pattern"]:
        yield shown("\n  ".join(sparse_cores(report)))
    yield zeros_buy(report)


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print what can be pruned, and what cannot and why."""
    table = Table(
        *_folded("layer", "op", "weight", "route"), title="Prunable layers", title_justify="left"
    )
    for title in ("shape", "groups × neurons × fan-in", "zeros"):
        table.add_column(title, justify="right")
    for layer in inspection.layers:
        table.add_row(
            shown(layer.name),
            shown(layer.op_type),
            shown(layer.weight),
            layer.route + _also_read(layer.also_read_by),
            _shape(layer.shape),
            f"{layer.groups} × {layer.neurons} × {layer.fan_in}",
            f"{layer.zeros / layer.parameters:.1%}",
        )
    console.print(table)
    if inspection.skipped:
        console.print(_skipped_table([[skip] for skip in inspection.skipped]))
    console.print(
        f"{inspection.prunable:,} of {inspection.parameters:,} parameters ({inspection.share:.1%}) "
        f"in {len(inspection.layers)} layers can be pruned."
    )


def _also_read(others: str) -> str:
    return f"; also read by {shown(others)}" if others else ""


def _layer_table(layers: list[LayerReport]) -> Table:
    table = Table(*_folded("layer", "op"), title="Layers", title_justify="left")
    refitted = any(layer.candidate for layer in layers)
    chosen = "chosen by" if refitted else "sampled"
    for title in ("shape", "sparsity", "ε median", "ε worst", chosen, "measured error"):
        table.add_column(title, justify="right")
    for layer in layers:
        name = shown(layer.name)
        if layer.shares_weight_with:
            name += f" (weight of {shown(layer.shares_weight_with)})"
        table.add_row(
            name,
            shown(layer.op_type),
            _shape(layer.shape),
            f"{layer.sparsity:.1%}",
            f"{layer.epsilon_median:.2g}",
            f"{layer.epsilon_worst:.2g}",
            layer.candidate if refitted else f"{layer.sampled_halves}/{layer.halves}",
            "not seen" if isnan(layer.measured_error) else f"{layer.measured_error:.3g}",
        )
    return table


def _alike(skipped: list[SkippedReport]) -> list[list[SkippedReport]]:
    """Nodes of one operator that are left alone for one reason, together."""
    groups: dict[tuple[str, str], list[SkippedReport]] = {}
    for skip in skipped:
        groups.setdefault((skip.op_type, skip.reason), []).append(skip)
    return list(groups.values())


def _skipped_table(groups: list[list[SkippedReport]]) -> Table:
    table = Table(*_folded("left alone", "op"), title="Left alone", title_justify="left")
    table.add_column("parameters", justify="right")
    table.add_column("why")
    for group in groups:
        names = ", ".join(shown(skip.name) for skip in group[:_NAMED])
        more = f" and {len(group) - _NAMED} more" if len(group) > _NAMED else ""
        size = sum(skip.parameters for skip in group)
        table.add_row(
            names + more, shown(group[0].op_type), f"{size:,}" if size else "",
            shown(group[0].reason),
        )  # fmt: skip
    return table


def _totals(report: Report) -> Table:
    table = Table(show_header=False, title="Totals", title_justify="left")
    for title, value in total_rows(report):
        table.add_row(title, shown(value))
    return table


def _outputs(report: Report) -> Table:
    after = "" if report.quantization is None else " after quantising,"
    title = f"Fidelity to the dense model{after} on held-out samples"
    table = Table("output", title=title, title_justify="left")
    for column in ("relative error", "cosine", "top-1 agreement"):
        table.add_column(column, justify="right")
    for output in report.outputs:
        agreement = output.top1_agreement
        table.add_row(
            shown(output.name) + (f" ({shown(output.note)})" if output.note else ""),
            "" if output.relative_error is None else f"{output.relative_error:.4g}",
            "" if output.cosine is None else f"{output.cosine:.5f}",
            "" if agreement is None else f"{agreement:.1%}",
        )
    return table


def _folded(*titles: str) -> list[Column]:
    """Columns for names, which are broken rather than cut: people copy them."""
    return [Column(title, overflow="fold") for title in titles]


def _shape(shape: list[int]) -> str:
    return "×".join(map(str, shape))
