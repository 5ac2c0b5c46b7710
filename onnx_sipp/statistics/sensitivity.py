"""Empirical sensitivity of every weight: SiPP's data-informed importance.

For a sign half W^σ of the weights (W⁺ or W⁻) and a sign half h of the inputs (a⁺ or a⁻),

    g_ij(x) = W^σ_ij h_j(x) / Σ_k W^σ_ik h_k(x)   in [0, 1],   0 where |denominator| ≤ 2⁻²³

is the share of weight j in what neuron i receives through that quadrant (arXiv 1910.05422,
definition of empirical sensitivity). The sensitivity of a weight is the largest share it has:

- ``max``: the maximum over samples, patches and h. The form that the bounds need.
- ``mean``: the mean over the patches of a sample, then the maximum over samples and h. The form
  that the authors' deterministic variant uses; no bound holds for it.

|W_ij| factors out of g, so a neuron's denominators are computed once for all its weights:
``mean`` is two matrix products per quadrant, ``max`` one product and one (max, ×) product.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Thread
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.loading import loading
from onnx_sipp.unfolding.base import Float32, Patches

__all__ = ["EPSILON", "Reduction", "SensitivityAccumulator", "load_early"]

Reduction = Literal["mean", "max"]

EPSILON = float(np.finfo(np.float32).eps)


def load() -> None:
    """Load the compiled (max, ×) product, which takes about half a second."""
    nothing = np.zeros((1, 2, 1), np.float32)
    one = nothing[:, :1]
    with suppress(Exception), loading():  # whoever needs it meets the same again, and tells it
        _max_product(nothing, one, one, one.copy())


def load_early() -> None:
    """Load it in the background."""
    Thread(target=load).start()  # no daemon: to end Python inside of the compiler would crash


def _max_product(left: Float32, right: Float32, weight: Float32, out: Float32) -> None:
    from onnx_sipp.statistics.max_product import max_product  # noqa: PLC0415 - loads the compiler

    max_product(left, right, weight, out)


class SensitivityAccumulator:
    """Sensitivities of one layer, streamed over patches.

    The result does not depend on how the samples are cut into pieces, and merging the
    accumulators of two sets of samples gives that of their union.

    Args:
        weight: float ``[group, out, fan_in]``.
        reduction: ``"mean"`` or ``"max"``.
    """

    def __init__(self, weight: NDArray[np.floating], reduction: Reduction) -> None:
        self.weight = np.ascontiguousarray(weight, np.float32)
        self.reduction = reduction
        groups, outs, fan_in = self.weight.shape
        self._halves: Float32 = np.empty((groups, 2 * outs, fan_in), np.float32)
        positive, negative = self._halves[:, :outs], self._halves[:, outs:]
        np.maximum(self.weight, 0, out=positive)
        np.maximum(np.negative(self.weight, out=negative), 0, out=negative)
        # g / |W|, reduced over samples and input signs
        self._ratio: Float32 = np.zeros(self.weight.shape, np.float32)  # rows contiguous
        # Sums over the pieces of an unfinished sample, per input sign (``mean`` only).
        self._partial: list[Float32 | None] = [None, None]
        self._partial_patches = 0

    def update(self, patches: Patches) -> None:
        """Take in the patches of some samples."""
        columns = patches.columns
        if columns.size == 0:
            return
        signed = bool(columns.min() < 0)
        inputs = [np.maximum(columns, 0), np.maximum(-columns, 0)] if signed else [columns]
        one_patch = patches.per_sample == 1 and patches.complete and not self._partial_patches
        for sign, half in enumerate(inputs):
            inverse = self._inverse_denominators(half)
            if self.reduction == "max" or one_patch:
                _max_product(inverse, half, self.weight, self._ratio)
            elif patches.samples > 1:
                self._mean_of_samples(inverse, half, patches)
            else:
                self._mean_of_piece(inverse, half, sign)
        if self.reduction == "mean" and not one_patch and patches.samples == 1:
            self._finish_piece(patches)

    def merge(self, other: SensitivityAccumulator) -> None:
        """Take in what another accumulator of the same layer has seen of other samples.

        Raises:
            ValueError: one of them is in the middle of a sample.
        """
        if self._partial_patches or other._partial_patches:
            raise ValueError("a sample is not complete yet")
        np.maximum(self._ratio, other._ratio, out=self._ratio)

    def result(self) -> Float32:
        """Sensitivities, float32 ``[group, out, fan_in]`` in [0, 1]."""
        result: Float32 = np.minimum(self._ratio * np.abs(self.weight), np.float32(1))
        return result

    def _inverse_denominators(self, half: Float32) -> Float32:
        z = self._halves @ half
        inverse = np.zeros_like(z)
        np.divide(1, z, out=inverse, where=z > EPSILON)
        return inverse

    def _raise(self, found: Float32) -> None:
        """Take in ratios of both halves, ``[group, 2 * out, fan_in]``: each weight is in one."""
        positive, negative = np.split(found, 2, axis=1)
        own = np.where(self.weight > 0, positive, negative)
        np.maximum(self._ratio, own, out=self._ratio)

    def _mean_of_samples(self, inverse: Float32, half: Float32, patches: Patches) -> None:
        groups, outs, _ = inverse.shape
        count, samples = patches.per_sample, patches.samples
        left = inverse.reshape(groups, outs, samples, count).transpose(2, 0, 1, 3)
        right = half.reshape(groups, -1, samples, count).transpose(2, 0, 3, 1)
        # A few samples at a time: one mean is as large as the weight itself.
        step = max(1, (1 << 22) // max(1, self._ratio.size))
        for start in range(0, samples, step):
            means = left[start : start + step] @ right[start : start + step]
            means *= np.float32(1 / count)
            self._raise(means.max(axis=0))

    def _mean_of_piece(self, inverse: Float32, half: Float32, sign: int) -> None:
        total = inverse @ half.transpose(0, 2, 1)
        before = self._partial[sign]
        self._partial[sign] = total if before is None else before + total

    def _finish_piece(self, patches: Patches) -> None:
        self._partial_patches += patches.columns.shape[2]
        if not patches.complete:
            return
        for total in self._partial:
            if total is not None:
                self._raise(total / np.float32(self._partial_patches))
        self._partial, self._partial_patches = [None, None], 0
