"""A sweep as a page of its own, with the curve."""

from __future__ import annotations

from onnx_sipp.report.pages import page_of_tables
from onnx_sipp.report.sweep import Sweep, sweep_tables

__all__ = ["sweep_html"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 310, 60, 45, 35


def sweep_html(found: Sweep) -> str:
    """The page; names from models and files are escaped."""
    title = f"What sparsity costs: {found.model}"
    plot = "" if found.layers else _plot(found)
    return page_of_tables(title, sweep_tables(found), found.warnings, found.version, plot)


def _plot(found: Sweep) -> str:
    """The relative error of the outputs against sparsity, "" if there are not two points."""
    points = [
        (point.sparsity, point.relative_error)
        for point in found.points
        if point.relative_error is not None
    ]
    if len(points) < 2:
        return ""
    most = max(error for _, error in points) or 1.0

    def place(sparsity: float, error: float) -> tuple[float, float]:
        x = _LEFT + sparsity * (_WIDTH - _LEFT - 20)
        return x, _HEIGHT - _BOTTOM - error / most * (_HEIGHT - _BOTTOM - _TOP)

    places = [place(*point) for point in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#06c">'
        f"<title>{sparsity:.1%}: {error:.4g}</title></circle>"
        for (x, y), (sparsity, error) in zip(places, points, strict=True)
    )
    across = "".join(_label(place(step / 10, 0), f"{step * 10} %") for step in range(0, 11, 2))
    up = "".join(_level(place(0, most * part / 4), f"{most * part / 4:.2g}") for part in range(5))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'aria-label="relative error of the outputs against sparsity">'
        f'<text x="4" y="14">relative error</text>{up}{across}'
        f'<text x="{_WIDTH - 20}" y="{_HEIGHT - 4}" text-anchor="end">sparsity</text>'
        f'<polyline points="{line}" fill="none" stroke="#06c" stroke-width="2"/>{dots}</svg>'
    )


def _label(place: tuple[float, float], text: str) -> str:
    return f'<text x="{place[0]:.1f}" y="{place[1] + 20:.1f}" text-anchor="middle">{text}</text>'


def _level(place: tuple[float, float], text: str) -> str:
    x, y = place
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{_WIDTH - 20}" y2="{y:.1f}" stroke="#8886"/>'
        f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )
