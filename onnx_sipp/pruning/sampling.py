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

# Counts of draws above this are not drawn (numpy's generator ends at 1e18).
_MANY = 1e12


def sample_halves(
    weight: NDArray[np.floating],
    probability: NDArray[np.floating],
    counts: NDArray[np.integer],
    seed: int,
    rows: NDArray[np.integer] | None = None,
) -> Float64:
    """Sample so many distinct weights of each row.

    Every row has a stream of random numbers of its own: rounding that changes one of them (the
    size of a batch may do so) does not change the others.

    Args:
        weight: ``[rows, fan_in]``; a row is a neuron half, zero where the other half is.
        probability: same shape, not negative, any scale; what stands where the weight is 0 (the
            other half of the neuron) does not count.
        counts: ``[rows]``, distinct weights to keep. A row with no more candidates than its count
            is kept as it is, without reweighting.
        seed: below 2⁶³; of all rows together.
        rows: ``[rows]``, numbers that tell the rows apart; 0, 1, 2, … if None.

    Returns:
        float64 weights of the same shape, exactly ``min(counts, candidates)`` non-zeros a row,
        with E[result] = weight for rows that were sampled at least once.
    """
    support = (probability > 0) & (weight != 0)
    candidates = support.sum(axis=-1)
    whole = candidates <= counts
    result: Float64 = np.where(whole[:, None] & support, weight, 0.0).astype(np.float64)
    chances = np.where(support, probability, 0).astype(np.float64)
    names = np.arange(len(weight)) if rows is None else rows
    for row in np.flatnonzero(~whole & (counts > 0)):
        stream = np.random.Generator(np.random.Philox(key=[seed, int(names[row])]))
        result[row] = weight[row] * _factors(chances[row], int(counts[row]), stream)
    return result


def _factors(chances: Float64, count: int, rng: np.random.Generator) -> Float64:
    """What to multiply the weights of a row by.

    The draws are run as Poisson processes: weight j comes up at rate q_j, independently. The order
    of first arrivals and the counts up to the (m + 1)-th newcomer then have the law of the
    sequence of draws, without a loop over draws.
    """
    q = chances / chances.sum()
    clock = rng.standard_exponential(len(q))
    first = np.divide(clock, q, out=np.full_like(q, np.inf), where=q > 0)
    end = np.partition(first, count)[count]
    seen = np.flatnonzero(first < end)
    mean = q[seen] * (end - first[seen])
    # Where newcomers are this rare, the count is its mean to within a part in a million.
    again = np.where(mean < _MANY, rng.poisson(np.minimum(mean, _MANY)), mean)
    times = 1 + again
    factors: Float64 = np.zeros_like(q)
    factors[seen] = times / (times.sum() * q[seen])
    return factors
