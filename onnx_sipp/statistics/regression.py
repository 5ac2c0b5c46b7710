"""Least squares of a layer from sums over patches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.statistics.cross import Cross
from onnx_sipp.statistics.gram import VERY_WIDE, WIDE, Gram
from onnx_sipp.statistics.input_moments import Moments
from onnx_sipp.threads import row_parts

__all__ = ["Regression"]

Float = NDArray[np.floating]
Float64 = NDArray[np.float64]


# Squares of the weights of an input, relative to those of others, from which on it is in another
# unit than they are.
_LARGE_WEIGHTS = 30


@dataclass(frozen=True, eq=False)
class Regression:
    """Least squares of a layer: minimise E‖t − Ŵ a‖² over Ŵ, and a bias where there is room.

    Attributes:
        moments: H; centred if the bias takes the means.
        cross: B, ``[group, out, fan_in]``; likewise.
        power: E[t²] per neuron, ``[group, out]``; likewise.
        mean_input: E[a], ``[group, fan_in]``.
        mean_target: E[t], ``[group, out]``.
        centred: whether the bias takes the means.
        count: patches behind the means.
    """

    moments: Moments
    cross: Float
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
        mean_input = gram.sums / max(1, gram.count)
        return _regression(gram.moments(centred=centred), mean_input, gram.count, cross, centred)

    def with_targets(self, cross: Cross) -> Regression:
        """The same inputs with other targets, over the same patches."""
        return _regression(self.moments, self.mean_input, self.count, cross, self.centred)

    def uncentred(self) -> Regression:
        """The same problem for a layer whose bias cannot take the means."""
        if not self.centred:
            return self
        a, t = self.mean_input, self.mean_target
        return replace(
            self,
            moments=self.moments.with_means(a),
            cross=self.cross + (t[:, :, None] * a[:, None, :]).astype(self.cross.dtype),
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
        return cls(
            moments=Moments(isotropic=(groups, fan_in)),
            cross=weight.astype(np.float64),
            power=np.sum(weight.astype(np.float64) ** 2, axis=-1),
            mean_input=np.zeros((groups, fan_in)),
            mean_target=np.zeros((groups, outs)),
            centred=False,
            count=0,
        )

    @property
    def gram(self) -> Float:
        """H, ``[group, fan_in, fan_in]``."""
        return self.moments.dense

    @property
    def fan_in(self) -> int:
        """Inputs of every neuron."""
        return int(self.mean_input.shape[1])

    @property
    def is_very_wide(self) -> bool:
        """Whether H is so large that it should not be copied, let alone inverted."""
        return self.fan_in > VERY_WIDE

    @property
    def diagonal(self) -> Float64:
        """Of H, ``[group, fan_in]``."""
        return self.moments.diagonal

    def scale(self, weight: Float) -> Float64:
        """What λ is relative to, ``[group, fan_in]``: the mean diagonal of H, for most inputs.

        In what unit an input is measured should not decide whether its weights can change; and the
        cost of their removal would be that of the damping alone. So for an input whose weights are
        far larger than others, it is smaller. A small input with weights like others is only quiet
        on these samples: they are held on to.

        Args:
            weight: ``[group, out, fan_in]``, what damping pulls towards.
        """
        own = self.diagonal
        mean = own.mean(axis=-1, keepdims=True)
        mean = np.where(mean > 0, mean, 1.0)  # a fan-in that is dead throughout leaves H = 0
        squares = np.einsum("gof,gof->gf", weight, weight, dtype=np.float64)
        given = np.broadcast_to((own * squares).mean(axis=-1, keepdims=True), own.shape)
        # What damps an input as much as others are damped, measured by what they give.
        alike = np.divide(given, squares, out=np.zeros_like(own), where=squares > 0)
        result: Float64 = np.where(alike > 0, np.minimum(mean, _LARGE_WEIGHTS * alike), mean)
        return result

    def damped(self, group: int, damping: float, weight: Float) -> tuple[Float64, Float64]:
        """H of a group in float64 with what is added to its diagonal, and that, ``[fan_in]``.

        Args:
            group: which.
            damping: λ.
            weight: see `scale`.
        """
        shift: Float64 = damping * self.scale(weight)[group]
        hessian = self.gram[group].astype(np.float64)
        hessian[np.diag_indices_from(hessian)] += shift
        return hessian, shift

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
        narrow: Float = weight.astype(dtype, copy=False)
        product = np.stack([self.moments.product(g, rows) for g, rows in enumerate(narrow)])
        quadratic = np.einsum("gof,gof->go", product, weight, dtype=np.float64)
        linear = np.einsum("gof,gof->go", self.cross, weight, dtype=np.float64)
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


def _regression(
    moments: Moments,
    mean_input: Float64,
    seen: int,
    cross: Cross,
    centred: bool,
) -> Regression:
    count = max(1, seen)
    mean_target = cross.sums / count
    b, power = cross.products, cross.squares / count
    targets, inputs = mean_target.astype(b.dtype)[:, :, None], mean_input.astype(b.dtype)[:, None]
    still = moments.diagonal == 0
    for rows in row_parts(b.shape):
        own = b[:, rows]  # it may be large, and is not needed as a sum any more
        own /= b.dtype.type(count)
        if centred:
            own -= targets[:, rows] * inputs
            for group in np.flatnonzero(still.any(axis=-1)):
                own[group][:, still[group]] = 0
    if centred:
        power -= mean_target**2
    return Regression(moments, b, np.maximum(power, 0), mean_input, mean_target, centred, seen)
