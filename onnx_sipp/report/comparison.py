"""Two models side by side, as plain data and in the terminal."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console

from onnx_sipp.report.finite import finite
from onnx_sipp.report.names import json_text
from onnx_sipp.report.printing import print_tables
from onnx_sipp.report.result import OutputReport

__all__ = ["Comparison", "Footprint", "Latency", "Metric", "comparison_tables", "print_comparison"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Footprint:
    """What a model takes.

    Attributes:
        bytes: of its file and external data.
        bytes_zstd: the same, compressed by zstd.
        load_seconds: to open it in onnxruntime, the median of several new processes.
        load_spread: between the quartiles of those.
        peak_bytes: the most memory that such a process had, one inference included.
        base_bytes: the most that it had before it opened the model.
    """

    bytes: int
    bytes_zstd: int
    load_seconds: float
    load_spread: float
    peak_bytes: int
    base_bytes: int


@dataclass(frozen=True)
class Latency:
    """Time per run, the two models taking turns.

    Attributes:
        batch: samples per run.
        threads: of the runtime.
        dense_seconds: the median.
        dense_spread: between its quartiles.
        pruned_seconds: the median.
        pruned_spread: between its quartiles.
        ratio: pruned / dense: the mean over pairs of sessions of the median over their turns.
        ratio_error: standard error of that.
        turns: how often each was measured.
        working: time is what the thread worked, without what other programs took; else it is that
            of a clock.
    """

    batch: int
    threads: int
    dense_seconds: float
    dense_spread: float
    pruned_seconds: float
    pruned_spread: float
    ratio: float
    ratio_error: float
    turns: int
    working: bool


@dataclass(frozen=True)
class Metric:
    """What the user's function says of both models."""

    name: str
    dense: float
    pruned: float


@dataclass(frozen=True)
class Comparison:
    """Everything `compare` found.

    Attributes:
        version: of onnx-sipp.
        dense_name: of the first model.
        pruned_name: of the second one.
        source: description of the data.
        samples: that fidelity was measured on.
        outputs: fidelity per output of the graph.
        dense: what the first model takes.
        pruned: what the second one takes.
        latency: one entry per batch size and number of threads.
        metric: of the user's function, None if none was given.
        warnings: what the user must know.
        schema_version: of this structure; grows when a field changes its meaning or goes.
    """

    version: str
    dense_name: str
    pruned_name: str
    source: str
    samples: int
    outputs: list[OutputReport]
    dense: Footprint
    pruned: Footprint
    latency: list[Latency]
    metric: Metric | None = None
    warnings: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain data: JSON types only, infinities and NaN as null."""
        data: dict[str, Any] = finite(asdict(self))
        return data

    def to_json(self) -> str:
        """The same as JSON text."""
        return json_text(self.to_dict())


Rows = list[list[str]]


def comparison_tables(found: Comparison) -> list[tuple[str, list[str], Rows]]:
    """What is shown: titles, headings and cells; the first column is text, the others numbers."""
    tables = [
        (
            f"Fidelity on {found.samples} samples of {found.source}",
            ["output", "relative error", "cosine", "top-1 agreement"],
            [_output_row(output) for output in found.outputs],
        ),
        ("Sizes and loading", ["", "dense", "pruned", "ratio"], _footprint_rows(found)),
    ]
    if found.latency:
        title = "Time per run in onnxruntime, taking turns"
        heads = ["batch", "threads", "dense", "pruned", "ratio", "turns"]
        tables.append((title, heads, [_latency_row(row) for row in found.latency]))
    if found.metric is not None:
        metric = found.metric
        values = [f"{metric.dense:.5g}", f"{metric.pruned:.5g}"]
        difference = f"{metric.pruned - metric.dense:+.5g}"
        heads = ["function", "dense", "pruned", "difference"]
        tables.append(("Task metric", heads, [[metric.name, *values, difference]]))
    return tables


def print_comparison(found: Comparison, console: Console) -> None:
    """Print all tables and warnings."""
    print_tables(comparison_tables(found), found.warnings, console)


def _output_row(output: OutputReport) -> list[str]:
    agreement = output.top1_agreement
    return [
        output.name + (f" ({output.note})" if output.note else ""),
        "" if output.relative_error is None else f"{output.relative_error:.4g}",
        "" if output.cosine is None else f"{output.cosine:.5f}",
        "" if agreement is None else f"{agreement:.1%}",
    ]


def _footprint_rows(found: Comparison) -> Rows:
    one, two = found.dense, found.pruned
    return [
        _sizes("bytes", one.bytes, two.bytes),
        _sizes("bytes, zstd", one.bytes_zstd, two.bytes_zstd),
        [
            "load",
            _time(one.load_seconds, one.load_spread),
            _time(two.load_seconds, two.load_spread),
            f"{two.load_seconds / one.load_seconds:.3f}",
        ],
        _sizes("peak memory, MiB", one.peak_bytes >> 20, two.peak_bytes >> 20),
        _sizes("before loading, MiB", one.base_bytes >> 20, two.base_bytes >> 20),
    ]


def _sizes(title: str, dense: int, pruned: int) -> list[str]:
    return [title, f"{dense:,}", f"{pruned:,}", f"{pruned / dense:.3f}"]


def _latency_row(row: Latency) -> list[str]:
    return [
        str(row.batch),
        str(row.threads),
        _time(row.dense_seconds, row.dense_spread),
        _time(row.pruned_seconds, row.pruned_spread),
        f"{row.ratio:.3f} ± {row.ratio_error:.3f}",
        str(row.turns),
    ]


def _time(seconds: float, spread: float) -> str:
    return f"{1e3 * seconds:.3g} ± {1e3 * spread / 2:.2g} ms"
