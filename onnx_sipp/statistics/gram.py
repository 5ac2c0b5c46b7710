"""Second-order statistics for refitting: H = E[a aᵀ], B = E[t aᵀ] and the means.

Sums are additive, so accumulators of two sets of samples merge into that of their union. A piece
of patches is multiplied in float32, the sum over pieces is float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.unfolding import Float32

__all__ = ["WIDE", "Cross", "Gram", "Regression"]

# From this fan-in on, products with H are float32: rounding is far below the statistics' noise.
WIDE = 256
# Of float32 sums over a piece of patches, relative; a variance below this share of E[a²] is none.
_ROUNDING = 1e-5

Float64 = NDArray[np.float64]


class Gram:
    """Σ a aᵀ and Σ a over patches; layers that share an input share one.

    Args:
        groups: number of groups.
        fan_in: inputs per group.
    """

    def __init__(self, groups: int, fan_in: int) -> None:
        self.products: Float64 = np.zeros((groups, fan_in, fan_in))
        self.sums: Float64 = np.zeros((groups, fan_in))
        self.count = 0

    def update(self, columns: Float32) -> None:
        """Take in patches ``[group, fan_in, patches]``."""
        for group, values in enumerate(columns):
            self.products[group] += values @ values.T  # numpy takes the symmetric product here
        self.sums += columns.sum(axis=2, dtype=np.float64)
        self.count += columns.shape[2]

    def merge(self, other: Gram) -> None:
        """Take in what another accumulator of the same input has seen."""
        self.products += other.products
        self.sums += other.sums
        self.count += other.count


class Cross:
    """Σ t aᵀ, Σ t and Σ t² of a layer's targets with its inputs.

    Args:
        groups: number of groups.
        outs: neurons per group.
        fan_in: inputs per group.
    """

    def __init__(self, groups: int, outs: int, fan_in: int) -> None:
        self.products: Float64 = np.zeros((groups, outs, fan_in))
        self.sums: Float64 = np.zeros((groups, outs))
        self.squares: Float64 = np.zeros((groups, outs))

    def update(self, columns: Float32, targets: Float32) -> None:
        """Take in patches ``[group, fan_in, patches]`` and targets ``[group, out, patches]``."""
        self.products += targets @ columns.transpose(0, 2, 1)
        self.sums += targets.sum(axis=2, dtype=np.float64)
        self.squares += np.einsum("gop,gop->go", targets, targets, dtype=np.float64)

    def merge(self, other: Cross) -> None:
        """Take in what another accumulator of the same layer has seen."""
        self.products += other.products
        self.sums += other.sums
        self.squares += other.squares


@dataclass(frozen=True, eq=False)
class Regression:
    """Least squares of a layer: minimise E‖t − Ŵ a‖² over Ŵ, and a bias where there is room.

    Attributes:
        gram: H, ``[group, fan_in, fan_in]``; centred if the bias takes the means.
        cross: B, ``[group, out, fan_in]``; likewise.
        power: E[t²] per neuron, ``[group, out]``; likewise.
        mean_input: E[a], ``[group, fan_in]``.
        mean_target: E[t], ``[group, out]``.
        centred: whether the bias takes the means.
        count: patches behind the means.
    """

    gram: Float64
    cross: Float64
    power: Float64
    mean_input: Float64
    mean_target: Float64
    centred: bool
    count: int

    @classmethod
    def of(cls, gram: Gram, cross: Cross, *, centred: bool) -> Regression:
        """Turn sums into means.

        Args:
            gram: of the inputs.
            cross: of the targets, over the same patches.
            centred: whether the layer has a bias that can take the means.
        """
        count = max(1, gram.count)
        mean_input, mean_target = gram.sums / count, cross.sums / count
        h, b, power = gram.products / count, cross.products / count, cross.squares / count
        if centred:
            noise = _ROUNDING * np.einsum("gff->gf", h)
            h -= mean_input[:, :, None] * mean_input[:, None, :]
            b -= mean_target[:, :, None] * mean_input[:, None, :]
            power -= mean_target**2
            # An input that does not vary leaves rounding behind, of either sign.
            alive = np.einsum("gff->gf", h) > noise
            h *= alive[:, :, None] & alive[:, None, :]
            b *= alive[:, None, :]
        return cls(h, b, np.maximum(power, 0), mean_input, mean_target, centred, gram.count)

    def uncentred(self) -> Regression:
        """The same problem for a layer whose bias cannot take the means."""
        if not self.centred:
            return self
        a, t = self.mean_input, self.mean_target
        return replace(
            self,
            gram=self.gram + a[:, :, None] * a[:, None, :],
            cross=self.cross + t[:, :, None] * a[:, None, :],
            power=self.power + t**2,
            centred=False,
        )

    @classmethod
    def blind(cls, weight: NDArray[np.floating]) -> Regression:
        """What to go by where nothing was seen: inputs that are independent and equally large.

        Args:
            weight: ``[group, out, fan_in]``, whose outputs are the targets.
        """
        groups, outs, fan_in = weight.shape
        h = np.repeat(np.eye(fan_in)[None], groups, axis=0)
        b = weight.astype(np.float64)
        nothing = np.zeros((groups, outs))
        return cls(h, b, np.sum(b**2, axis=-1), np.zeros((groups, fan_in)), nothing, False, 0)

    def gram_as(self, dtype: type[np.floating]) -> NDArray[np.floating]:
        """H in another precision, converted once."""
        if dtype is np.float64:
            return self.gram
        return self._narrow

    @cached_property
    def _narrow(self) -> NDArray[np.float32]:
        return self.gram.astype(np.float32)

    def of_neurons(self, rows: NDArray[np.intp]) -> Regression:
        """The same problem for some neurons of every group only."""
        return replace(
            self,
            cross=self.cross[:, rows],
            power=self.power[:, rows],
            mean_target=self.mean_target[:, rows],
        )

    def errors(self, weight: NDArray[np.floating]) -> Float64:
        """E[(t − ŵᵀa − best bias)²] of each neuron, ``[group, out]``."""
        dtype = np.float32 if weight.shape[-1] >= WIDE else np.float64
        narrow: NDArray[np.floating] = weight.astype(dtype, copy=False)
        product = narrow @ self.gram_as(dtype)
        quadratic = np.einsum("gof,gof->go", product, weight, dtype=np.float64)
        linear = np.einsum("gof,gof->go", self.cross, weight)
        result: Float64 = np.maximum(quadratic - 2 * linear + self.power, 0)
        return result

    def errors_with(self, weight: NDArray[np.floating], bias: Float64) -> Float64:
        """E[(t − ŵᵀa − bias)²] of each neuron, ``[group, out]``, with a bias from elsewhere."""
        off = self.mean_target - bias - np.einsum("gof,gf->go", weight, self.mean_input)
        # Centred errors leave the mean out, the others have it in with the bias at 0.
        result: Float64
        if self.centred:
            result = self.errors(weight) + off**2
            return result
        result = np.maximum(self.errors(weight) - (off + bias) ** 2 + off**2, 0)
        return result

    def spread(self) -> Float64:
        """Variance of the target of each neuron, ``[group, out]``."""
        if self.centred:
            return self.power
        result: Float64 = np.maximum(self.power - self.mean_target**2, 0)
        return result

    def best_bias(self, weight: NDArray[np.floating]) -> Float64:
        """The bias that goes with a weight, ``[group, out]``: E[t] − ŵᵀE[a]; 0 if not centred."""
        if not self.centred:
            return np.zeros_like(self.mean_target)
        result: Float64 = self.mean_target - np.einsum("gof,gf->go", weight, self.mean_input)
        return result
