"""Accuracy against sparsity, drawn: one field per task."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from svg_file import as_file

from isolation.study import DENSE, INITS, SPARSITIES
from isolation.summary import Summary
from onnx_sipp.report.svg import Canvas, Scale

__all__ = ["drawn"]

_FIELD, _HEIGHT, _LEFT, _TOP, _GAP = 250, 190, 44, 30, 40
_STYLE = """\
text { font: 12px sans-serif; fill: #333 } .end { text-anchor: end } .mid { text-anchor: middle }
.axis { stroke: #999; fill: none } .dense { stroke: #888; fill: none; stroke-dasharray: 1 3 }
path { stroke-width: 1.8; stroke-linejoin: round } .random { stroke-dasharray: 5 3 }
.m0 { stroke: #d1495b; fill: none } .m1 { stroke: #7b2cbf; fill: none }
.m2 { stroke: #00798c; fill: none } .m3 { stroke: #b8860b; fill: none }
.m4 { stroke: #6c757d; fill: none } .key { stroke: #555; fill: none }
.paper { fill: #fff }
@media (prefers-color-scheme: dark) {
  .paper { fill: #1b1b1b } text { fill: #ddd } .key { stroke: #ccc }
}
"""


def drawn(summaries: Sequence[Summary]) -> str:
    """An SVG file: full lines for masks from trained weights, broken ones for random weights."""
    width, height = _LEFT + len(summaries) * (_FIELD + _GAP), _TOP + _HEIGHT + 80
    canvas = Canvas(width, height, "Accuracy of sub-networks trained in isolation")
    canvas.rect((0, 0), (width, height), "paper")
    for number, summary in enumerate(summaries):
        _field(canvas, summary, _LEFT + number * (_FIELD + _GAP))
    _legend(canvas, summaries[0], _TOP + _HEIGHT + 44)
    return as_file(canvas, _STYLE)


def _field(canvas: Canvas, summary: Summary, left: float) -> None:
    bottom = _TOP + _HEIGHT
    places = Scale(0, len(SPARSITIES) - 1, left + 10, left + _FIELD - 10)
    dense = summary.mean("", DENSE, 0.0)
    top = min(1.0, ceil(10 * dense + 0.5) / 10)
    accuracy = Scale(0, top, bottom, _TOP)
    canvas.text((left + _FIELD / 2, _TOP - 12), summary.task, "mid")
    canvas.line([(left, _TOP), (left, bottom), (left + _FIELD, bottom)], "axis")
    for share in (0, top / 4, top / 2, 3 * top / 4, top):
        canvas.text((left - 4, accuracy(share) + 4), f"{share:.0%}", "end")
    for place, sparsity in enumerate(SPARSITIES):
        canvas.text((places(place), bottom + 16), f"{sparsity:.0%}", "mid")
    canvas.line([(left, accuracy(dense)), (left + _FIELD, accuracy(dense))], "dense")
    for init, method in summary.lines:
        points = [
            (places(place), accuracy(summary.mean(init, method, sparsity)))
            for place, sparsity in enumerate(SPARSITIES)
        ]
        canvas.line(points, _look(summary, init, method))


def _legend(canvas: Canvas, summary: Summary, top: float) -> None:
    step = 132
    for number, method in enumerate(summary.methods):
        at = _LEFT + number * step
        canvas.line([(at, top), (at + 24, top)], f"m{number}")
        canvas.text((at + 30, top + 4), method, "")
    at = _LEFT
    for look, words in (
        ("key", "mask from trained weights"),
        ("key random", "mask from random weights"),
        ("dense", "dense"),
    ):
        canvas.line([(at, top + 20), (at + 24, top + 20)], look)
        canvas.text((at + 30, top + 24), words, "")
        at += 200


def _look(summary: Summary, init: str, method: str) -> str:
    number = summary.methods.index(method)
    return f"m{number} random" if init == INITS[0] else f"m{number}"
