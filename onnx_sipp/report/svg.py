"""Just enough SVG for the plots of a report: plain shapes, whose looks are classes of its style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log10

from markupsafe import Markup

from onnx_sipp.report.names import visible

__all__ = ["Canvas", "Point", "Scale"]

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Where values lie on an axis.

    Attributes:
        low: value at ``start``.
        high: value at ``end``.
        start: place, in pixels.
        end: place, in pixels.
        logarithmic: whether equal ratios take equal room; ``low`` is above 0 then.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; of one that is off the axis, the nearer end."""
        inside = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = log10(inside / self.low) / log10(self.high / self.low)
        else:
            share = (inside - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


@dataclass
class Canvas:
    """An image that grows shape by shape.

    Attributes:
        width: in pixels.
        height: in pixels.
        label: what is to be seen, for those who do not see it.
    """

    width: float
    height: float
    label: str
    _shapes: list[Markup] = field(default_factory=list)

    @property
    def image(self) -> Markup:
        """As an element of a page."""
        size = f"0 0 {_number(self.width)} {_number(self.height)}"
        head = Markup('<svg role="img" aria-label="{}" viewBox="{}" width="{}" height="{}">')
        start = head.format(visible(self.label), size, _number(self.width), _number(self.height))
        return start + Markup("").join(self._shapes) + Markup("</svg>")

    def rect(self, at: Point, size: Point, look: str, tip: str = "") -> None:
        """Draw a rectangle from its upper left corner."""
        places = [_number(value) for value in (*at, *size)]
        shape = Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}"').format(
            *places, look
        )
        self._close(shape, "rect", tip)

    def dot(self, at: Point, radius: float, look: str, tip: str = "") -> None:
        """Draw a disc around its centre."""
        places = [_number(value) for value in (*at, radius)]
        shape = Markup('<circle cx="{}" cy="{}" r="{}" class="{}"').format(*places, look)
        self._close(shape, "circle", tip)

    def line(self, points: Sequence[Point], look: str) -> None:
        """Draw straight lines from point to point."""
        steps = "L".join(f"{_number(x)} {_number(y)}" for x, y in points)
        self._close(Markup('<path d="M{}" class="{}"').format(steps, look), "path", "")

    def arc(self, start: Point, end: Point, reach: float, look: str) -> None:
        """Draw a bow between two points, so far to the left of them."""
        (x1, y1), (x2, y2) = start, end
        bow = (x1, y1, x1 - reach, y1, x2 - reach, y2, x2, y2)
        path = "M{} {}C{} {} {} {} {} {}".format(*map(_number, bow))
        self._close(Markup('<path d="{}" class="{}"').format(path, look), "path", "")

    def text(self, at: Point, words: str, look: str, tip: str = "") -> None:
        """Write words; the class says to which side of the point."""
        shape = Markup('<text x="{}" y="{}" class="{}">{}').format(
            *map(_number, at), look, visible(words)
        )
        self._shapes.append(shape + _title(tip) + Markup("</text>"))

    def _close(self, shape: Markup, name: str, tip: str) -> None:
        end = Markup(">{}</{}>").format(_title(tip), name) if tip else Markup("/>")
        self._shapes.append(shape + end)


def _title(tip: str) -> Markup:
    return Markup("<title>{}</title>").format(visible(tip)) if tip else Markup("")


def _number(value: float) -> str:
    """To a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")
