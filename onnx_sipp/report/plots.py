"""The plots of a report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, floor, isfinite, isnan, log10

from markupsafe import Markup

from onnx_sipp.report.details import CurveReport, Distribution
from onnx_sipp.report.result import LayerReport
from onnx_sipp.report.svg import Canvas, Point, Scale

__all__ = ["certificate_plot", "curve_plot", "level", "sensitivity_plot", "sparsity_plot"]

_SMALL = (280.0, 130.0)


def level(sparsity: float) -> str:
    """The class of a colour for a sparsity, in tenths."""
    return f"s{round(10 * min(max(sparsity, 0.0), 1.0))}"


def sparsity_plot(layers: Sequence[LayerReport]) -> Markup:
    """A bar per layer, in graph order, as high as the layer is sparse."""
    step = 18.0 if len(layers) > 24 else 28.0
    canvas = Canvas(48 + step * len(layers), 190, "Sparsity of every layer, in graph order")
    scale = Scale(0, 1, 160, 14)
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        _across(canvas, scale(tick), 40, f"{tick:.0%}")
    every = 1 if step > 20 else 2
    for place, layer in enumerate(layers):
        left, top = 42 + step * place, scale(layer.sparsity)
        tip = f"{place + 1}. {layer.name}: {layer.sparsity:.1%} of {layer.parameters:,}"
        canvas.rect((left, top), (step - 4, 160 - top), f"bar {level(layer.sparsity)}", tip)
        if place % every == 0:
            canvas.text((left + step / 2 - 2, 176), str(place + 1), "label middle")
    return canvas.image


def certificate_plot(layers: Sequence[LayerReport]) -> Markup:
    """Per layer the certified ε, median to worst, and the measured error, on one scale."""
    known = [
        value
        for layer in layers
        for value in (layer.epsilon_median, layer.epsilon_worst, layer.measured_error)
        if isfinite(value) and value > 0
    ]
    if not known:
        return Markup("")
    low, high = (10.0 ** floor(log10(min(known))), 10.0 ** ceil(log10(max(*known, 2.0))))
    low = max(low, high * 1e-7)
    step = 18.0 if len(layers) > 24 else 28.0
    label = "Certified and measured relative error of every layer, in graph order"
    canvas = Canvas(62 + step * len(layers), 230, label)
    scale = Scale(low, high, 200, 14, logarithmic=True)
    for power in range(round(log10(low)), round(log10(high)) + 1):
        _across(canvas, scale(10.0**power), 54, _power(power))
    canvas.line([(54, scale(1)), (canvas.width, scale(1))], "limit")
    every = 1 if step > 20 else 2
    for place, layer in enumerate(layers):
        middle = 56 + step * (place + 0.5)
        tip = f"{place + 1}. {layer.name}: {_errors(layer)}"
        ends = scale(layer.epsilon_worst), scale(layer.epsilon_median)
        if layer.epsilon_worst > 0:
            canvas.rect((middle - 3, ends[0]), (6, max(2.0, ends[1] - ends[0])), "certified", tip)
        if isfinite(layer.measured_error):  # none at all is below any logarithmic scale
            look = "measured" if layer.measured_error > 0 else "unhurt"
            canvas.dot((middle, scale(layer.measured_error)), 4, look, tip)
        if place % every == 0:
            canvas.text((middle, 216), str(place + 1), "label middle")
    return canvas.image


def sensitivity_plot(found: Distribution) -> Markup:
    """Which sensitivities stay and which go, and where these would part if nothing else counted."""
    canvas = Canvas(*_SMALL, "Distribution of sensitivities")
    across = Scale(found.exponents[0], found.exponents[-1], 40, 272)
    totals = [kept + gone for kept, gone in zip(found.kept, found.dropped, strict=True)]
    up = Scale(0, max(*totals, 1), 108, 10)
    _across(canvas, up(up.high), 36, _count(max(totals)))
    _across(canvas, up(0), 36, "0")
    for power in range(round(found.exponents[0]), 1):
        canvas.text((across(power), 123), _power(power), "label middle")
    edges = [across(edge) for edge in found.exponents]
    canvas.line(_steps(edges, [up(count) for count in totals], up(0)), "area kept")
    canvas.line(_steps(edges, [up(count) for count in found.dropped], up(0)), "area dropped")
    if found.cut is not None:
        canvas.line([(across(found.cut), 6), (across(found.cut), 108)], "cut")
    return canvas.image


def curve_plot(curve: CurveReport, sparsity: float) -> Markup:
    """Expected error against sparsity, with the layer's own sparsity."""
    canvas = Canvas(*_SMALL, "Expected error against sparsity")
    across, up = Scale(0, 1, 40, 272), Scale(0, max(*curve.errors, 1e-9), 108, 10)
    _across(canvas, up(up.high), 36, f"{up.high:.2g}")
    _across(canvas, up(0), 36, "0")
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        canvas.text(
            (across(tick), 123), f"{tick:.0%}", "label end" if tick == 1 else "label middle"
        )
    points = [(across(s), up(e)) for s, e in zip(curve.sparsities, curve.errors, strict=True)]
    canvas.line(points, "curve")
    error = _between(curve, sparsity)
    canvas.line([(across(sparsity), 6), (across(sparsity), 108)], "cut")
    canvas.dot((across(sparsity), up(error)), 4, "measured", f"{sparsity:.1%}: {error:.3g}")
    return canvas.image


def _errors(layer: LayerReport) -> str:
    worst, median = (f"{e:.2g}" for e in (layer.epsilon_worst, layer.epsilon_median))
    measured = "not" if isnan(layer.measured_error) else f"{layer.measured_error:.2g}"
    certified = f"certified ε {median} (median), {worst} (worst)".replace("inf", "∞")
    return f"{certified}; measured {measured}"


def _across(canvas: Canvas, height: float, left: float, words: str) -> None:
    """A line of the grid, and what it stands for."""
    canvas.line([(left, height), (canvas.width - 4, height)], "grid")
    canvas.text((left - 4, height + 4), words, "label end")


def _steps(edges: Sequence[float], heights: Sequence[float], ground: float) -> list[Point]:
    """The outline of a histogram."""
    points = [(edges[0], ground)]
    for (left, right), height in zip(pairwise(edges), heights, strict=True):
        points += [(left, height), (right, height)]
    return [*points, (edges[-1], ground)]


def _between(curve: CurveReport, sparsity: float) -> float:
    points = list(zip(curve.sparsities, curve.errors, strict=True))
    for (left, low), (right, high) in pairwise(points):
        if left <= sparsity <= right:
            return low + (high - low) * (sparsity - left) / (right - left)
    return points[-1][1]


def _power(power: int) -> str:
    """A power of ten, as few characters as can be read."""
    return {0: "1", 1: "10", 2: "100", -1: "0.1"}.get(power, f"1e{power}")


def _count(count: int) -> str:
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)
