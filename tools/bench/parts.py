"""The parts of a run that work on large arrays, each with what it does in flops or bytes.

All call the functions of the project, on arrays as large as a run hands them, with as many threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.compensation import refit
from onnx_sipp.pruning.greedy import greedy_costs
from onnx_sipp.statistics.cross import Cross
from onnx_sipp.statistics.gram import VERY_WIDE, WIDE, Gram
from onnx_sipp.statistics.max_product import max_product
from onnx_sipp.statistics.regression import Regression
from onnx_sipp.statistics.sensitivity import SensitivityAccumulator
from onnx_sipp.threads import blas_threads, side_by_side
from onnx_sipp.unfolding.base import PIECE_BYTES, Patches

__all__ = ["DOUBLE", "SINGLE", "Part", "arithmetic", "products"]

Float32 = NDArray[np.float32]
SINGLE, DOUBLE = "matrix product, float32", "matrix product, float64"
STEPS = 20


@dataclass(frozen=True)
class Part:
    """Something to measure.

    Attributes:
        name: What it is.
        size: In words.
        amount: Flops or bytes of it.
        unit: Of a billion of these in a second.
        work: Does it.
        limit: Name of the plain work that the machine does at its best; its own name if it is that.
    """

    name: str
    size: str
    amount: float
    unit: str
    work: Callable[[], Any]
    limit: str


def products(size: int, threads: int) -> list[Part]:
    """Plain matrix products: what the machine can do.

    Args:
        size: Of the square matrices.
        threads: Of the products.
    """
    rng = np.random.default_rng(0)
    parts = []
    for name, dtype in ((SINGLE, np.float32), (DOUBLE, np.float64)):
        left, right = (rng.standard_normal((size, size), dtype) for _ in range(2))

        def work(left: NDArray[Any] = left, right: NDArray[Any] = right) -> None:
            with blas_threads(threads):
                _ = left @ right

        parts.append(Part(name, f"{size}×{size}×{size}", 2.0 * size**3, "GFLOP/s", work, name))
    return parts


def arithmetic(width: int, threads: int) -> Iterator[Part]:
    """Sensitivities, sums and refit of a layer.

    Args:
        width: Neurons and inputs of the layer.
        threads: That share the work.
    """
    patches = max(1, PIECE_BYTES // (4 * width))
    rng = np.random.default_rng(0)
    columns = np.abs(rng.standard_normal((1, width, min(patches, 4096)), np.float32))
    weight = rng.standard_normal((1, width, width), np.float32)
    yield from _sensitivities(weight, columns, threads)
    yield from _sums(columns, weight @ columns, threads)
    yield _very_wide(max(4 * width, VERY_WIDE + 256), threads)
    wide = max(width, WIDE)
    yield from _refits(wide, wide, SINGLE, threads)
    yield from _refits(wide, WIDE - 16, DOUBLE, threads)


def _sensitivities(weight: Float32, columns: Float32, threads: int) -> Iterator[Part]:
    """The neurons are dealt out among the threads, as those of a wide layer are."""
    _, outs, fan_in = weight.shape
    count = columns.shape[2]
    size = f"{outs}×{fan_in}, {count:,} patches"
    rows = np.array_split(np.arange(outs), threads)
    flops = 2.0 * outs * fan_in * count
    factors = np.random.default_rng(1).random((1, 2 * outs, count), np.float32)
    jobs = [
        (np.concatenate([factors[:, own], factors[:, outs + own]], 1), weight[:, own])
        for own in rows
    ]
    results = [np.zeros_like(part) for _, part in jobs]

    def maxima() -> None:
        side_by_side(
            lambda job: max_product(job[0][0], columns, job[0][1], job[1]),
            zip(jobs, results, strict=True),
            threads,
        )

    yield Part("(max, ×) product of the sensitivities", size, flops, "GFLOP/s", maxima, SINGLE)
    accumulators = [SensitivityAccumulator(weight[:, own], "max") for own in rows]

    def update() -> None:
        side_by_side(lambda one: one.update(Patches(columns, count)), accumulators, threads)

    name = "sensitivities in all: W⁺a and W⁻a, and that product"
    yield Part(name, size, 3 * flops, "GFLOP/s", update, SINGLE)


def _sums(columns: Float32, targets: Float32, threads: int) -> Iterator[Part]:
    """Every thread has batches and sums of its own."""
    _, fan_in, count = columns.shape
    outs = targets.shape[1]
    grams = [Gram(1, fan_in) for _ in range(threads)]
    crosses = [Cross(1, outs, fan_in) for _ in range(threads)]

    def gram() -> None:
        side_by_side(lambda one: one.update(columns), grams, threads)

    def cross() -> None:
        side_by_side(lambda one: one.update(columns, targets), crosses, threads)

    half = float(threads * fan_in * (fan_in + 1) * count)
    size = f"{threads} of {fan_in}×{fan_in}, {count:,} patches"
    yield Part("H += a aᵀ, one half of it", size, half, "GFLOP/s", gram, SINGLE)
    size = f"{threads} of {outs}×{fan_in}, {count:,} patches"
    flops = 2.0 * threads * outs * fan_in * count
    yield Part("B += t aᵀ", size, flops, "GFLOP/s", cross, SINGLE)


def _very_wide(fan_in: int, threads: int) -> Part:
    """Sums of a very wide input are made in blocks of rows."""
    columns = np.random.default_rng(2).standard_normal((1, fan_in, fan_in), np.float32)
    gram = Gram(1, fan_in)
    gram.update(columns)  # from now on it holds H, not the patches

    def update() -> None:
        with blas_threads(threads):
            gram.update(columns)

    size = f"{fan_in}×{fan_in}, {fan_in:,} patches"
    flops = float(fan_in * (fan_in + 1) * fan_in)
    return Part("H += a aᵀ, very wide", size, flops, "GFLOP/s", update, SINGLE)


def _refits(outs: int, fan_in: int, limit: str, threads: int) -> Iterator[Part]:
    """The product W H, the refit that is made of it, and the exact greedy order."""
    rng = np.random.default_rng(3)
    columns = rng.standard_normal((1, fan_in, 2 * fan_in), np.float32)
    weight = rng.standard_normal((1, outs, fan_in), np.float32)
    gram, cross = Gram(1, fan_in), Cross(1, outs, fan_in)
    gram.update(columns)
    cross.update(columns, weight @ columns)
    problem = Regression.of(gram, cross, centred=False)
    kept = rng.random(weight.shape) < 0.5
    own = weight[0].astype(np.float32 if limit == SINGLE else np.float64)
    size = f"{outs}×{fan_in}"

    def product() -> None:
        blocks = np.array_split(own, threads)
        side_by_side(lambda rows: problem.moments.product(0, rows), blocks, threads)

    def whole() -> None:
        refit(problem, weight, kept, damping=0.01, steps=STEPS, tolerance=0.0, threads=threads)

    flops = 2.0 * outs * fan_in**2
    yield Part("W H of the refit", size, flops, "GFLOP/s", product, limit)
    name = f"refit of {STEPS} steps"
    yield Part(name, size, (STEPS + 1) * flops, "GFLOP/s", whole, limit)
    if limit == DOUBLE:  # narrow enough for it

        def greedy() -> None:
            greedy_costs(problem, weight, damping=0.01, threads=threads)

        flops = outs * float(fan_in) ** 3 / 3
        yield Part("exact greedy order of removal", size, flops, "GFLOP/s", greedy, SINGLE)
