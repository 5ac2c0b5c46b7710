"""Seconds against size, drawn: one field per quantity, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10

from svg_file import as_file

from bench.scaling import Curve, exponent
from onnx_sipp.report.svg import Canvas, Scale

__all__ = ["drawn"]

_FIELD, _HEIGHT, _LEFT, _TOP, _GAP = 250, 200, 52, 30, 52
_STYLE = """\
text { font: 12px sans-serif; fill: #333 } .end { text-anchor: end } .mid { text-anchor: middle }
.axis { stroke: #999; fill: none } .grid { stroke: #ddd; fill: none }
path { stroke-width: 1.8; stroke-linejoin: round } .axis, .grid { stroke-width: 1 }
.m0 { stroke: #00798c; fill: none } .d0 { fill: #00798c }
.m1 { stroke: #7b2cbf; fill: none } .d1 { fill: #7b2cbf }
.m2 { stroke: #d1495b; fill: none } .d2 { fill: #d1495b }
.paper { fill: #fff }
@media (prefers-color-scheme: dark) {
  .paper { fill: #1b1b1b } text { fill: #ddd } .grid { stroke: #444 }
}
"""


def drawn(curves: Sequence[Curve]) -> str:
    """Returns an SVG file."""
    width, height = _LEFT + len(curves) * (_FIELD + _GAP), _TOP + _HEIGHT + 88
    canvas = Canvas(width, height, "Seconds against samples, width and depth")
    canvas.rect((0, 0), (width, height), "paper")
    seconds = _axis(curves)
    for number, curve in enumerate(curves):
        _field(canvas, curve, seconds, _LEFT + number * (_FIELD + _GAP))
    for number, name in enumerate(curves[0].seconds):
        at, top = _LEFT + number * 230, _TOP + _HEIGHT + 66
        canvas.line([(at, top), (at + 24, top)], f"m{number}")
        canvas.text((at + 30, top + 4), name.replace("`", ""), "")
    return as_file(canvas, _STYLE)


def _axis(curves: Sequence[Curve]) -> Scale:
    """The axis of seconds, from one power of ten to another."""
    times = [t for curve in curves for found in curve.seconds.values() for t in found.values()]
    low, high = floor(log10(min(times, default=0.1))), ceil(log10(max(times, default=1)))
    high = max(high, low + 1)
    return Scale(10.0**low, 10.0**high, _TOP + _HEIGHT, _TOP, logarithmic=True)


def _field(canvas: Canvas, curve: Curve, seconds: Scale, left: float) -> None:
    bottom, right = _TOP + _HEIGHT, left + _FIELD
    sizes = sorted(curve.rounds)
    last = max(sizes[-1], sizes[0] + 1)
    places = Scale(sizes[0], last, left + 14, right - 14, logarithmic=True)
    canvas.text((left + _FIELD / 2, _TOP - 12), f"seconds against {curve.title}", "mid")
    for power in range(round(log10(seconds.low)), round(log10(seconds.high)) + 1):
        height = seconds(10.0**power)
        canvas.line([(left, height), (right, height)], "grid")
        canvas.text((left - 4, height + 4), f"{10.0**power:g}", "end")
    canvas.line([(left, _TOP), (left, bottom), (right, bottom)], "axis")
    for size in sizes:
        canvas.text((places(size), bottom + 16), f"{size:,}", "mid")
    fits = []
    for number, (name, found) in enumerate(curve.seconds.items()):
        points = [(places(size), seconds(time)) for size, time in found.items()]
        if len(points) > 1:
            canvas.line(points, f"m{number}")
            fits.append(f"{exponent(found):.2f}")
        for point, (size, time) in zip(points, found.items(), strict=True):
            canvas.dot(point, 2.5, f"d{number}", f"{name}: {size:,}: {time:.3g} s")
    canvas.text((left + _FIELD / 2, bottom + 36), f"exponents: {', '.join(fits)}", "mid")
