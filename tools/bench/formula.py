"""What sensitivities cost as the formula has them, beside the matrix products of onnx-sipp.

The formula makes a share g = w a / Σ w a of every weight, for every patch, and takes the maximum
(or the mean over the patches of a sample, and then the maximum). As it stands there, that is an
array of the size of the weight for every patch. The authors' implementation goes neuron by neuron
instead, with an array of fan-in × patches for each. Both are plain numpy here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray
from table_methods import markdown

from bench.timing import Effort, alternating, figures, told
from onnx_sipp.statistics.sensitivity import EPSILON, Reduction, SensitivityAccumulator
from onnx_sipp.threads import blas_threads
from onnx_sipp.unfolding.base import Patches

__all__ = ["Layer", "by_neuron", "by_patch", "costs", "ours"]

Float32 = NDArray[np.float32]
REDUCTIONS: tuple[Reduction, ...] = ("max", "mean")
HEADER = [
    "neurons × inputs", "samples × patches", "form", "patch by patch, s", "neuron by neuron, s",
    "onnx-sipp, s", "times faster than patch by patch", "than neuron by neuron", "equal", "rounds",
]  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A layer with made-up weights and inputs of both signs.

    Attributes:
        weight: ``[out, fan_in]``.
        inputs: ``[samples, fan_in, patches]``.
    """

    weight: Float32
    inputs: Float32

    @classmethod
    def made(cls, outs: int, fan_in: int, samples: int, patches: int) -> Layer:
        """Makes one up."""
        rng = np.random.default_rng(0)
        weight = rng.standard_normal((outs, fan_in), np.float32)
        return cls(weight, rng.standard_normal((samples, fan_in, patches), np.float32))

    def quadrants(self) -> Iterator[tuple[Float32, Float32]]:
        """Yields halves of the weight with halves of the inputs, by sign; none is negative."""
        for weight, inputs in product((self.weight, -self.weight), (self.inputs, -self.inputs)):
            yield np.maximum(weight, 0), np.maximum(inputs, 0)


def by_patch(layer: Layer, reduction: Reduction) -> Float32:
    """Returns the sensitivities, by arrays of neurons × inputs, one for every patch."""
    best = np.zeros_like(layer.weight)
    for weight, inputs in layer.quadrants():
        for sample in inputs:
            shares = (_shares(weight * patch, 1) for patch in sample.T)
            if reduction == "max":
                for share in shares:
                    np.maximum(best, share, out=best)
            else:
                np.maximum(best, sum(shares) / np.float32(sample.shape[1]), out=best)
    return best


def by_neuron(layer: Layer, reduction: Reduction) -> Float32:
    """Returns the sensitivities, by arrays of samples × inputs × patches, one for every neuron."""
    best = np.zeros_like(layer.weight)
    reduce = np.max if reduction == "max" else np.mean
    for weight, inputs in layer.quadrants():
        for neuron, row in enumerate(weight):
            shares = _shares(row[:, None] * inputs, 1)
            np.maximum(best[neuron], reduce(shares, axis=2).max(axis=0), out=best[neuron])
    return best


def _shares(products: Float32, axis: int) -> Float32:
    """Divides products by their sum along an axis; 0 where that is none."""
    total = products.sum(axis=axis, keepdims=True)
    total[total <= EPSILON] = np.inf
    products /= total
    return products


def ours(layer: Layer, reduction: Reduction) -> Float32:
    """Returns the sensitivities as a run of onnx-sipp finds them."""
    samples, fan_in, _ = layer.inputs.shape
    accumulator = SensitivityAccumulator(layer.weight[None], reduction)
    columns = layer.inputs.transpose(1, 0, 2).reshape(1, fan_in, -1)
    accumulator.update(Patches(columns, samples))
    return accumulator.result()[0]


def costs(shapes: Sequence[Sequence[int]], effort: Effort) -> str:
    """Measures layers of several sizes on one thread.

    Args:
        shapes: Neurons, inputs, samples, and patches of a sample.
        effort: How often.

    Returns:
        The table.
    """
    lines = []
    for shape in shapes:
        told(f"formula: {shape}")
        layer = Layer.made(*shape)
        lines += [_row(layer, reduction, effort) for reduction in REDUCTIONS]
    return markdown(HEADER, lines)


def _row(layer: Layer, reduction: Reduction, effort: Effort) -> list[str]:
    ways: list[Callable[[Layer, Reduction], Float32]] = [by_patch, by_neuron, ours]
    with blas_threads(1):
        found = alternating({way.__name__: partial(way, layer, reduction) for way in ways}, effort)
    patch, neuron, own = found.values()
    samples, _, patches = layer.inputs.shape
    equal = all(
        np.allclose(own.result, other.result, rtol=1e-4, atol=1e-6) for other in (patch, neuron)
    )
    return [
        "×".join(map(str, layer.weight.shape)), f"{samples}×{patches}", reduction,
        figures(patch.median), figures(neuron.median), figures(own.median),
        figures(patch.median / own.median), figures(neuron.median / own.median),
        "yes" if equal else "NO", str(len(own.seconds)),
    ]  # fmt: skip
