"""An image as a file of its own, with its style inside."""

from __future__ import annotations

from onnx_sipp.report.svg import Canvas

__all__ = ["as_file"]


def as_file(canvas: Canvas, style: str) -> str:
    """Returns the text of an SVG file.

    Args:
        canvas: The image.
        style: Rules of CSS for the classes of its shapes.
    """
    start, rest = str(canvas.image).split(">", 1)
    head = start.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{head}><style>{style}</style>{rest}\n"
