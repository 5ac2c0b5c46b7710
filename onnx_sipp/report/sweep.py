"""What every sparsity costs, as plain data, as a table of numbers, and in the terminal."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from rich.console import Console

from onnx_sipp.report.finite import finite
from onnx_sipp.report.names import json_text
from onnx_sipp.report.printing import print_tables
from onnx_sipp.report.result import OutputReport

__all__ = ["LayerCurve", "Sweep", "SweepDense", "SweepPoint", "print_sweep", "sweep_tables"]

SCHEMA_VERSION = 1
Columns = tuple[str, list[str], list[list[str]]]


@dataclass(frozen=True)
class SweepPoint:
    """One sparsity.

    Attributes:
        sparsity: share of zeros among the prunable weights.
        zeros: how many those are.
        bytes: of the model's file and external data.
        bytes_zstd: the same, compressed by zstd.
        bytes_packed: the same with the weights stored without their zeros.
        relative_error: largest of the outputs, on held-out samples; None if none can be compared.
        top1_agreement: smallest of the outputs that look like class scores; None if none does.
        metric: of the user's function; None if there is none.
        epsilon_median: of the layers' median certified relative errors of a neuron half.
        epsilon_worst: the largest certified relative error of a neuron half.
        layer_error: the largest relative error of a layer's output.
        budget: which budget was taken, "" if there was no choice.
        outputs: fidelity per output of the graph.
    """

    sparsity: float
    zeros: int
    bytes: int
    bytes_zstd: int
    bytes_packed: int
    relative_error: float | None
    top1_agreement: float | None
    metric: float | None
    epsilon_median: float
    epsilon_worst: float
    layer_error: float
    budget: str
    outputs: list[OutputReport]


@dataclass(frozen=True)
class LayerCurve:
    """What a layer costs alone.

    Attributes:
        name: of the node.
        op_type: of the node.
        parameters: elements of its weight.
        shared_with: other layers of the same weight, which change with it.
        errors: relative error of the model's outputs when this layer alone is pruned, per sparsity;
            None where so much cannot be kept, because it is zero already.
    """

    name: str
    op_type: str
    parameters: int
    shared_with: list[str]
    errors: list[float | None]


@dataclass(frozen=True)
class Sweep:
    """Everything that `sweep` found.

    Attributes:
        version: of onnx-sipp.
        model: its name.
        options: what was asked for.
        source: description of the data.
        samples: that were calibrated on.
        held_out: that fidelity was measured on.
        prunable: elements of all prunable weights.
        dense: sizes of the dense model, and its metric.
        points: one per sparsity, ascending; none if layers were looked at alone.
        sparsities: of the layers' curves.
        layers: one per weight, in graph order; none unless they were looked at alone.
        metric_name: the user's function, "" if there is none.
        warnings: what the user must know.
        seconds: wall time.
        schema_version: of this structure; grows when a field changes its meaning or goes.
    """

    version: str
    model: str
    options: dict[str, Any]
    source: str
    samples: int
    held_out: int
    prunable: int
    dense: SweepDense
    points: list[SweepPoint]
    sparsities: list[float]
    layers: list[LayerCurve]
    metric_name: str
    warnings: list[str]
    seconds: float
    schema_version: int = field(default=SCHEMA_VERSION)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: JSON types only, infinities and NaN as null."""
        data: dict[str, Any] = finite(asdict(self))
        return data

    def to_json(self) -> str:
        """The same as JSON text."""
        return json_text(self.to_dict())

    def to_csv(self) -> str:
        """A line per sparsity, or per layer; a number that does not exist is an empty cell."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        if self.layers:
            writer.writerow(["layer", "op_type", "parameters", *map(_number, self.sparsities)])
            for layer in self.layers:
                numbers = [_number(error) for error in layer.errors]
                writer.writerow([layer.name, layer.op_type, layer.parameters, *numbers])
        else:
            names = [name for name in asdict(self.points[0]) if name != "outputs"]
            writer.writerow(names)
            for point in self.points:
                writer.writerow([_number(getattr(point, name)) for name in names])
        return out.getvalue()


@dataclass(frozen=True)
class SweepDense:
    """The dense model.

    Attributes:
        bytes: of its file and external data.
        bytes_zstd: the same, compressed by zstd.
        metric: of the user's function; None if there is none.
    """

    bytes: int
    bytes_zstd: int
    metric: float | None


def sweep_tables(found: Sweep) -> list[Columns]:
    """What is shown: titles, headings and cells; the first column is text, the others numbers."""
    if found.layers:
        title = "Relative error at the outputs with one layer pruned alone"
        heads = ["layer", "op", "weights", *(f"{sparsity:.0%}" for sparsity in found.sparsities)]
        return [(title, heads, [_layer_row(layer) for layer in found.layers])]
    heads = ["sparsity", "relative error", "top-1 agreement"]
    if found.metric_name:
        heads.append(found.metric_name)
    heads += ["bytes", "zstd", "packed", "ε median", "worst layer error", "budget"]
    title = f"Fidelity on {found.held_out} held-out samples of {found.source}, and sizes"
    return [(title, heads, [_dense_row(found), *(_row(point, found) for point in found.points)])]


def print_sweep(found: Sweep, console: Console) -> None:
    """Print the table and the warnings."""
    print_tables(sweep_tables(found), found.warnings, console)
    console.print(f"{found.seconds:.1f} s, with one calibration on {found.samples} samples.")


def _row(point: SweepPoint, found: Sweep) -> list[str]:
    cells = [
        f"{point.sparsity:.2%}",
        _short(point.relative_error),
        "" if point.top1_agreement is None else f"{point.top1_agreement:.1%}",
    ]
    if found.metric_name:
        cells.append("" if point.metric is None else f"{point.metric:.5g}")
    sizes = [point.bytes, point.bytes_zstd, point.bytes_packed]
    return [
        *cells,
        *(f"{size:,}" for size in sizes),
        f"{point.epsilon_median:.2g}",
        "not seen" if not isfinite(point.layer_error) else f"{point.layer_error:.3g}",
        point.budget,
    ]


def _dense_row(found: Sweep) -> list[str]:
    dense = found.dense
    cells = ["dense", "", ""]
    if found.metric_name:
        cells.append("" if dense.metric is None else f"{dense.metric:.5g}")
    return [*cells, f"{dense.bytes:,}", f"{dense.bytes_zstd:,}", "", "", "", ""]


def _layer_row(layer: LayerCurve) -> list[str]:
    name = layer.name + (f" (and {', '.join(layer.shared_with)})" if layer.shared_with else "")
    errors = [_short(error) for error in layer.errors]
    return [name, layer.op_type, f"{layer.parameters:,}", *errors]


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _number(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return ""
    return value
