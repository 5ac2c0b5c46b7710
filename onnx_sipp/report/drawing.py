"""All the plots of a page."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup

from onnx_sipp.report.flow_plot import MOST_STEPS, flow_plot
from onnx_sipp.report.names import visible
from onnx_sipp.report.plots import certificate_plot, curve_plot, sensitivity_plot, sparsity_plot
from onnx_sipp.report.result import LayerReport, Report
from onnx_sipp.report.svg import Canvas

__all__ = ["Plots", "key", "parted", "plots_of"]

_PARTS = re.compile(r"(?<=[/._:])(?=\w)")


def parted(name: str) -> Markup:
    """A name of a model that may be broken between its parts."""
    return Markup("<wbr>").join(_PARTS.split(visible(name, "\n")))


def key(look: str) -> Markup:
    """A patch of a colour, for a legend."""
    canvas = Canvas(14, 14, "")
    canvas.rect((1, 1), (12, 12), look)
    return canvas.image


@dataclass(frozen=True)
class Plots:
    """What a page shows of the layers.

    Attributes:
        sparsity: see `sparsity_plot`.
        certificate: see `certificate_plot`.
        flow: see `flow_plot`; nothing if there are too many steps.
        details: per weight, its first layer, its sensitivities and its curve, if it has one.
    """

    sparsity: Markup
    certificate: Markup
    flow: Markup
    details: list[tuple[LayerReport, Markup, Markup]]

    @property
    def has_curves(self) -> bool:
        """Whether any weight has one."""
        return any(curve for _, _, curve in self.details)


def plots_of(report: Report) -> Plots:
    """Draw a report."""
    layers = report.layers
    return Plots(
        sparsity_plot(layers),
        certificate_plot(layers),
        flow_plot(report.steps, layers) if len(report.steps) <= MOST_STEPS else Markup(""),
        [
            (
                layer,
                sensitivity_plot(layer.sensitivities),
                curve_plot(layer.curve, layer.sparsity) if layer.curve else Markup(""),
            )
            for layer in layers
            if layer.sensitivities is not None
        ],
    )
