"""SiPP's bounds: what is proven of a layer once weights are dropped.

The relative error of a neuron half, |ẑ^σ − z^σ| / z^σ, is at most ε with probability at least
1 − δ over the calibration batch (and the sampling), for a fresh input of the same distribution:

- changing weights deterministically: ε = C Σ_j s_j |ŵ_j / w_j − 1|, which is C Σ_{j dropped} s_j
  where weights are only dropped;
- keeping m sampled weights: ε = S̃/m + √((S̃/m)(S̃/m + 6)), S̃ = L Σ_j s_j / 3 (Bernstein),

with L = C ln(8 (P + 1) κ / δ) and P patches per sample (arXiv 1910.05422; THEORY of the authors'
implementation). The bounds are about the products W⁺a and W⁻a and leave out biases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.threads import row_parts, side_by_side

__all__ = [
    "DELTA",
    "SLACK",
    "C",
    "Certificate",
    "certify",
    "epsilon_sampled",
    "half_counts",
    "half_sums",
    "log_factor",
    "samples_for",
    "samples_needed",
]

Float64 = NDArray[np.float64]

C = 3.0  # constant of the sensitivity bound in the authors' implementation
DELTA = 1e-16  # failure probability used there

# What is chosen to meet a wanted ε leaves out this much of it, for rounding in float64.
SLACK = 1e-9


@dataclass(frozen=True)
class Certificate:
    """The bound of one layer.

    Attributes:
        epsilon: ``[2, group, out]``, ε of the positive and the negative half of each neuron.
        sensitivity_sums: same shape, Σ_j s_j.
        delta: the failure probability.
        samples_given: calibration samples used.
        samples_needed: samples that the theory asks for.
    """

    epsilon: Float64
    sensitivity_sums: Float64
    delta: float
    samples_given: int
    samples_needed: int

    @property
    def worst(self) -> float:
        """The largest ε."""
        return float(self.epsilon.max(initial=0.0))

    @property
    def median(self) -> float:
        """The median ε over halves that have weights at all."""
        used = self.epsilon[self.sensitivity_sums > 0]
        return float(np.median(used)) if used.size else 0.0


def log_factor(patches: int, delta: float = DELTA, kappa: float = 1.0) -> float:
    """L = C ln(8 (P + 1) κ / δ) of a layer with P patches per sample."""
    return float(C * np.log(8 * (patches + 1) * kappa / delta))


def samples_needed(outputs: list[int], delta: float = DELTA) -> int:
    """Size of the calibration batch, ⌈C ln(8 η η* / δ)⌉.

    Args:
        outputs: η_ℓ, the number of output scalars of each layer for one sample.
        delta: failure probability.
    """
    return int(np.ceil(C * np.log(8 * sum(outputs) * max(outputs) / delta)))


def half_sums(values: NDArray[np.floating], weight: NDArray[np.floating]) -> Float64:
    """Sum values over the positive and the negative weights of each neuron.

    Args:
        values: ``[group, out, fan_in]``.
        weight: same shape.

    Returns:
        float64 ``[2, group, out]``.
    """
    halves = (weight > 0, weight < 0)
    return np.stack([np.sum(values * half, axis=-1, dtype=np.float64) for half in halves])


def half_counts(marked: NDArray[np.bool_], weight: NDArray[np.floating]) -> NDArray[np.int64]:
    """Count the marked weights among the positive and the negative weights of each neuron.

    Args:
        marked: ``[group, out, fan_in]``.
        weight: same shape.

    Returns:
        int64 ``[2, group, out]``.
    """
    halves = (weight > 0, weight < 0)
    return np.stack([np.count_nonzero(marked & half, axis=-1) for half in halves])


def epsilon_sampled(sums: Float64, counts: NDArray[np.integer], factor: float) -> Float64:
    """ε of sampling: infinite where nothing is kept of a half that matters.

    Args:
        sums: Σ_j s_j.
        counts: m, same shape.
        factor: L of the layer.
    """
    u = np.divide(sums * factor / 3, counts, out=np.full_like(sums, np.inf), where=counts > 0)
    u = np.where(sums > 0, u, 0.0)
    result: Float64 = u + np.sqrt(u * (u + 6))
    return result


def samples_for(sums: Float64, epsilon: float, factor: float) -> NDArray[np.int64]:
    """Weights to sample for a wanted ε: m = ⌈S̃ (6 + 2 ε) / ε²⌉, the inverse of the bound."""
    if epsilon <= 0:
        return np.where(sums > 0, np.iinfo(np.int64).max, 0)
    # The slack covers the rounding of the inverse; the limit keeps a tiny ε within int64.
    counts = np.ceil((1 + SLACK) * sums * factor / 3 * (6 + 2 * epsilon) / epsilon**2)
    return np.minimum(counts, 2.0**62).astype(np.int64)


def certify(
    weight: NDArray[np.floating],
    sensitivity: NDArray[np.floating],
    changed: NDArray[np.floating],
    sampled: NDArray[np.bool_] | None,
    *,
    patches: int,
    samples: int,
    needed: int,
    delta: float = DELTA,
    threads: int = 1,
) -> Certificate:
    """Bound what a change of its weights does to a layer; any mask has such a bound.

    If weight j becomes ŵ_j, the sum of a half changes by at most Σ_j |ŵ_j − w_j| a_j, which is at
    most C Σ_j s_j |ŵ_j / w_j − 1| times the sum, whatever made the change.

    Args:
        weight: ``[group, out, fan_in]`` before pruning.
        sensitivity: the ``max`` form, same shape.
        changed: same shape, the weights after: zero where dropped.
        sampled: ``[2, group, out]``, halves whose weights were sampled and reweighted, which have
            the bound of sampling instead; None if none were.
        patches: patches per sample.
        samples: calibration samples given.
        needed: calibration samples that the theory asks for.
        delta: failure probability.
        threads: parts of the neurons that are looked at at the same time.
    """

    def sums_of(rows: slice) -> tuple[Float64, Float64]:
        old, new, weighs = weight[:, rows], changed[:, rows], sensitivity[:, rows]
        ratio = np.divide(new, old, out=np.ones(old.shape), where=old != 0)
        return half_sums(weighs, old), half_sums(weighs * np.abs(ratio - 1), old)

    parts = side_by_side(sums_of, row_parts(weight.shape), threads)
    sums, moved = (np.concatenate(found, axis=2) for found in zip(*parts, strict=True))
    epsilon = C * moved
    if sampled is not None and sampled.any():
        # A weight without sensitivity was never drawn, so it does not count.
        drawn = (changed != 0) & (sensitivity > 0)
        bound = epsilon_sampled(sums, half_counts(drawn, weight), log_factor(patches, delta))
        epsilon = np.where(sampled, bound, epsilon)
    return Certificate(epsilon, sums, delta, samples, needed)
