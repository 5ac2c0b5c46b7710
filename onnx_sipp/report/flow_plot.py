"""The way through the graph, layer by layer, coloured by sparsity."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from onnx_sipp.report.details import StepReport
from onnx_sipp.report.plots import level
from onnx_sipp.report.result import LayerReport
from onnx_sipp.report.svg import Canvas

__all__ = ["MOST_STEPS", "flow_plot"]

# A longer list is of no use to look at, and makes a page heavy.
MOST_STEPS = 2000
_ROW, _LANE, _BOX = 22.0, 70.0, 64.0
# Characters of a name that are shown, the end of it first: it says most.
_NAME = 56


def flow_plot(steps: Sequence[StepReport], layers: Sequence[LayerReport]) -> Markup:
    """A row per step; what comes from the row above is joined by a line, the rest by bows."""
    rows = {layer.name: layer for layer in layers}
    canvas = Canvas(_LANE + _BOX + 16 + 7.3 * _NAME, _ROW * len(steps) + 8, "The way of the data")
    for place, step in enumerate(steps):
        for source in step.sources:
            _join(canvas, source, place)
    for place, step in enumerate(steps):
        middle = _ROW * (place + 0.5) + 4
        found = [rows[name] for name in step.layers if name in rows]
        if found:
            _box(canvas, middle, found)
        else:
            canvas.dot((_LANE + _BOX / 2, middle), 5, "way")
        name = step.name if len(step.name) <= _NAME - 8 else "…" + step.name[-(_NAME - 9) :]
        words = f"{name} ({step.op_type})"
        look = "label start" if found else "label start faint"
        canvas.text((_LANE + _BOX + 10, middle + 4), words, look, f"{step.name} ({step.op_type})")
    return canvas.image


def _box(canvas: Canvas, middle: float, layers: Sequence[LayerReport]) -> None:
    """A layer, or all layers of one node together."""
    zeros, size = sum(row.zeros for row in layers), sum(row.parameters for row in layers)
    share = zeros / size if size else 0.0
    tip = "; ".join(f"{row.name}: {row.sparsity:.1%} of {row.parameters:,}" for row in layers)
    canvas.rect((_LANE, middle - 8), (_BOX, 16), f"bar {level(share)}", tip)
    ink = "on-deep" if share >= 0.75 else "on-middle" if share >= 0.45 else ""
    canvas.text((_LANE + _BOX / 2, middle + 4), f"{share:.0%}", f"label middle {ink}".strip(), tip)


def _join(canvas: Canvas, source: int, place: int) -> None:
    start, end = _ROW * (source + 0.5) + 4, _ROW * (place + 0.5) + 4
    if place == source + 1:
        canvas.line([(_LANE + _BOX / 2, start), (_LANE + _BOX / 2, end)], "edge")
    else:
        reach = min(_LANE, 14 + 5 * (place - source)) * 1.3
        canvas.arc((_LANE, start), (_LANE, end), min(reach, _LANE * 1.3 - 4), "edge")
