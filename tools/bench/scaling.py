"""Seconds against the number of samples, the width and the depth of made-up MLPs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx
from bench_accuracy import Arrays, Prune, sparsegpt
from make_large import samples as rows
from onnx import TensorProto, helper, numpy_helper
from table_methods import markdown

from bench.rivals import ours_with
from bench.timing import Effort, alternating, figures, told

__all__ = ["Curve", "Sizes", "curves", "expected", "exponent", "mlp", "table"]

METHODS: dict[str, Prune] = {
    "onnx-sipp": ours_with(),
    "onnx-sipp, `--allocation layer`": ours_with(allocation="layer"),
    "onnxsim SparseGPT": sparsegpt,
}
SPARSITY = 0.5
LAYERS, SAMPLES = 3, 512


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        samples: Numbers of samples, with ``narrow`` inputs.
        widths: Of all layers.
        depths: Numbers of layers, of half that width.
        narrow: Width while the number of samples grows.
        limit: Seconds; a method that is expected to take more is left out from there on.
    """

    samples: Sequence[int]
    widths: Sequence[int]
    depths: Sequence[int]
    narrow: int
    limit: float


@dataclass
class Curve:
    """One quantity that grows.

    Attributes:
        title: Of the quantity.
        fixed: What the others are.
        seconds: By method, the median by size.
        rounds: Rounds by size.
    """

    title: str
    fixed: str
    seconds: dict[str, dict[int, float]] = field(default_factory=dict)
    rounds: dict[int, int] = field(default_factory=dict)


def mlp(width: int, depth: int) -> onnx.ModelProto:
    """Makes an MLP of layers of the same width, a Relu between them."""
    rng = np.random.default_rng(0)
    nodes, tensors, value = [], [], "x"
    for number in range(depth):
        weight = rng.standard_normal((width, width), np.float32) * np.float32((2 / width) ** 0.5)
        names = [f"w{number}", f"b{number}"]
        arrays = [weight, np.zeros(width, np.float32)]
        tensors += [
            numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True)
        ]
        made = "y" if number == depth - 1 else f"h{number}"
        nodes.append(helper.make_node("Gemm", [value, *names], [made], name=f"layer{number}"))
        if made != "y":
            value = f"a{number}"
            nodes.append(helper.make_node("Relu", [made], [value]))
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])] for name in "xy"
    )
    graph = helper.make_graph(nodes, "mlp", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def curves(sizes: Sizes, effort: Effort) -> list[Curve]:
    """Measures all three."""

    def made(count: int, width: int, depth: int) -> tuple[onnx.ModelProto, Arrays]:
        return mlp(width, depth), {"x": rows(count, width, 0)}

    narrow, thin = sizes.narrow, max(1, sizes.narrow // 2)
    found = []
    for title, fixed, values, make in (
        ("samples", f"{LAYERS} layers of {narrow}×{narrow}", sizes.samples,
         lambda count: made(count, narrow, LAYERS)),
        ("width", f"{LAYERS} layers, {SAMPLES} samples", sizes.widths,
         lambda width: made(SAMPLES, width, LAYERS)),
        ("depth", f"layers of {thin}×{thin}, {SAMPLES} samples", sizes.depths,
         lambda depth: made(SAMPLES, thin, depth)),
    ):  # fmt: skip
        curve = Curve(title, fixed, {name: {} for name in METHODS})
        _measure(curve, values, make, sizes.limit, effort)
        found.append(curve)
    return found


def _measure(
    curve: Curve,
    values: Sequence[int],
    make: Callable[[int], tuple[onnx.ModelProto, Arrays]],
    limit: float,
    effort: Effort,
) -> None:
    """Fills a curve, from the smallest size on."""
    for size in sorted(values):
        told(f"scaling: {curve.title} {size}")
        model, data = make(size)
        works = {
            name: partial(prune, model, data, SPARSITY)
            for name, prune in METHODS.items()
            if expected(curve.seconds[name], size) <= limit
        }
        found = alternating(works, effort)
        for name, timed in found.items():
            if not timed.trouble:
                curve.seconds[name][size] = timed.median
        curve.rounds[size] = max((len(timed.seconds) for timed in found.values()), default=0)


def expected(found: Mapping[int, float], size: int) -> float:
    """Returns the seconds of a size if it goes on as between the last two; 0 if they are few."""
    if len(found) < 2:
        return 0.0
    (x, early), (y, late) = list(found.items())[-2:]
    slope = math.log(late / early) / math.log(y / x)
    return late * (size / y) ** max(1.0, slope)


def exponent(found: Mapping[int, float]) -> float:
    """Returns p of seconds ≈ c · sizeᵖ, by least squares of the logarithms; nan of one size."""
    if len(found) < 2:
        return float("nan")
    sizes, seconds = np.log(list(found)), np.log(list(found.values()))
    return float(np.polyfit(sizes, seconds, 1)[0])


def table(curve: Curve) -> str:
    """Returns the table of a curve, with the exponents below."""
    lines = [
        [
            f"{size:,}",
            *(figures(found.get(size, float("nan"))) for found in curve.seconds.values()),
            str(rounds),
        ]
        for size, rounds in curve.rounds.items()
    ]
    ends = {"exponent, all": 0, "exponent, last three": -3}
    for words, start in ends.items():
        fits = (exponent(dict(list(f.items())[start:])) for f in curve.seconds.values())
        lines.append([words, *(f"**{fit:.2f}**" if fit == fit else "–" for fit in fits), ""])  # noqa: PLR0124
    return markdown([curve.title, *curve.seconds, "rounds"], lines)
