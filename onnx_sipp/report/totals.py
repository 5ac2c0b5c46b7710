"""A run in a few rows: the terminal, the page and the text show the same."""

from __future__ import annotations

from onnx_sipp.report.cut_summary import cut_rows
from onnx_sipp.report.result import Report

__all__ = ["total_rows"]

Rows = list[tuple[str, str]]


def total_rows(report: Report) -> Rows:
    """What there was, what is left, and how that was done: titles and values."""
    rows = cut_rows(report.cut) if report.cut is not None else _zero_rows(report)
    if report.bytes_before is not None:
        rows.append(("file before", f"{report.bytes_before:,} bytes"))
    if report.bytes_after is not None:
        rows.append(("file after", f"{report.bytes_after:,} bytes"))
    data, options = report.calibration, report.options
    samples = f"{data.samples}, and {data.held_out} held out"
    rows.append(("calibrated on", f"{data.source}: {samples}"))
    rows.append(_method(report))
    if options["pattern"]:
        rows.append(("pattern", options["pattern"]))
    if options["compensate"] != "none":
        rows.append(("kept weights", f"refitted, {options['compensate']}"))
    added = [layer.name for layer in report.layers if layer.bias_is_new]
    if added:
        rows.append(("biases added", ", ".join(added)))
    if report.freed:
        rows.append(("dead paths", _freed(report)))
    rows.append(("time", f"{report.seconds:.1f} s"))
    return rows


def _zero_rows(report: Report) -> Rows:
    of_all = report.zeros / report.parameters if report.parameters else 0
    found = f"{report.zeros:,} of {report.prunable:,} ({report.sparsity:.2%})"
    return [
        ("zeros among prunable weights", found),
        ("of all parameters", f"{of_all:.2%} of {report.parameters:,}"),
    ]


def _method(report: Report) -> tuple[str, str]:
    options = report.options
    if options.get("masks"):
        return "masks", options["masks"]
    return "method", f"{options['method']}, {_budget(report)}"


def _budget(report: Report) -> str:
    options = report.options
    if report.budgets:
        errors = ", ".join(f"{name} {error:.4f}" for name, error in report.budgets.items())
        return f"budget {report.budget} (measured error: {errors})"
    if options["epsilon"] is not None:
        return f"as far as every ε stays at most {options['epsilon']:g}"
    if report.budget:
        return f"budget {report.budget}"
    if ":" in options["pattern"]:
        return "the same share of every layer"
    return f"budget {options['allocation']}"


def _freed(report: Report) -> str:
    """How many weights did nothing, where, and what it was worth to spend them again."""
    layers = [layer for layer in report.layers if layer.freed and not layer.shares_weight_with]
    most = sorted(layers, key=lambda layer: -layer.freed)[:3]
    where = ", ".join(f"{layer.name} {layer.freed:,}" for layer in most)
    rest = f" and {len(layers) - len(most)} more" if len(layers) > len(most) else ""
    first, last = report.freed_errors[0], report.freed_errors[-1]
    return (
        f"{report.freed:,} weights that did nothing made room for others ({where}{rest}): "
        f"output error {first:.4f}, then {last:.4f}"
    )
