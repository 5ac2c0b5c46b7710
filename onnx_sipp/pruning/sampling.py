"""Importance sampling of weights: unbiased, and with an exact number of weights kept.

SiPP draws weight j of a neuron half with probability q_j = s_j / S, m times with replacement, and
reweights: ŵ_j = w_j · count_j / (m q_j). The number of distinct weights is then random. Here the
draws go on until m + 1 distinct weights have come up, and the last draw is left out (inverse
sampling; Pathak, Sankhyā 1964): with v draws left, ŵ_j = w_j · count_j / (v q_j) has exactly m
non-zeros. Given the v draws and the one left out, all their orders are equally likely, so ŵ is the
conditional mean of a single reweighted draw, and of the mean of the first m draws. The first makes
it unbiased; the second, by Jensen's inequality, gives it every exponential tail bound that m
independent draws have: the certificate holds with m the number of weights kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["sample_halves"]

Float64 = NDArray[np.float64]


def sample_halves(
    weight: NDArray[np.floating],
    probability: NDArray[np.floating],
    counts: NDArray[np.integer],
    rng: np.random.Generator,
) -> Float64:
    """Sample so many distinct weights of each row.

    Args:
        weight: ``[rows, fan_in]``; a row is a neuron half, zero where the other half is.
        probability: same shape, not negative, any scale; positive only where the weight is not 0.
        counts: ``[rows]``, distinct weights to keep. A row with no more candidates than its count
            is kept as it is, without reweighting.
        rng: source of randomness.

    Returns:
        float64 weights of the same shape, exactly ``min(counts, candidates)`` non-zeros a row,
        with E[result] = weight for rows that were sampled at least once.
    """
    support = (probability > 0) & (weight != 0)
    candidates = support.sum(axis=-1)
    whole = candidates <= counts
    sampled = ~whole & (counts > 0)
    result = np.where(whole[:, None] & support, weight, 0.0).astype(np.float64)
    if sampled.any():
        result[sampled] = _draw(weight[sampled], probability[sampled], counts[sampled], rng)
    return result


def _draw(
    weight: NDArray[np.floating],
    probability: NDArray[np.floating],
    counts: NDArray[np.integer],
    rng: np.random.Generator,
) -> Float64:
    """Run the draws as Poisson processes: weight j comes up at rate q_j, independently.

    The order of first arrivals and the counts up to the (m + 1)-th newcomer then have the law of
    the sequence of draws, without a loop over draws.
    """
    q = probability.astype(np.float64)
    q /= q.sum(axis=-1, keepdims=True)
    clock = rng.standard_exponential(q.shape)
    first = np.divide(clock, q, out=np.full_like(q, np.inf), where=q > 0)
    end = np.take_along_axis(np.sort(first, axis=-1), counts[:, None].astype(np.intp), axis=-1)
    seen = first < end
    again = rng.poisson(np.where(seen, q * (end - np.where(seen, first, 0.0)), 0.0))
    times = np.where(seen, 1 + again, 0)
    draws = times.sum(axis=-1, keepdims=True)
    factor = np.divide(times, draws * q, out=np.zeros_like(q), where=seen)
    result: Float64 = weight * factor
    return result
