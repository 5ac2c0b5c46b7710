"""Importance sampling: unbiased, and exact in the number of weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_sipp.pruning.sampling import sample_halves

DRAWS = 20_000


def repeated(row, count=DRAWS):
    return np.broadcast_to(np.asarray(row, np.float64), (count, len(row)))


def sample(weight, probability, count, seed=0, draws=DRAWS):
    return sample_halves(
        repeated(weight, draws),
        repeated(probability, draws),
        np.full(draws, count),
        seed,
    )


CASES = {
    "even": ([1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0]),
    "uneven": ([1.0, 2.0, 3.0, 4.0, 5.0], [8.0, 4.0, 2.0, 1.0, 0.5]),
    "negative": ([-1.0, -0.1, -5.0], [0.2, 0.5, 0.3]),
    "with gaps": ([0.0, 2.0, 3.0, 0.0, 1.0, 7.0], [0.0, 1.0, 3.0, 0.0, 2.0, 0.0]),
    "one dominates": ([1.0, 1.0, 1.0, 1.0], [1.0, 0.02, 0.02, 0.02]),
}


@pytest.mark.parametrize(("weight", "probability"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("count", [1, 2])
def test_unbiased(weight, probability, count):
    """The mean over many draws is the weight, within five standard errors."""
    drawn = sample(weight, probability, count)
    error = drawn.std(axis=0) / np.sqrt(DRAWS)
    support = (np.array(probability) > 0) & (np.array(weight) != 0)
    expected = np.where(support, weight, 0)
    assert np.all(np.abs(drawn.mean(axis=0) - expected) <= 5 * error + 1e-12)


def test_the_estimate_of_a_sum_is_unbiased():
    """What the theorem is about: Σ ŵ a for an input a that the probabilities do not know."""
    weight, probability = CASES["uneven"]
    inputs = np.array([0.3, 5.0, 0.0, 2.0, 1.0])
    sums = sample(weight, probability, 3) @ inputs
    assert abs(sums.mean() - np.array(weight) @ inputs) <= 5 * sums.std() / np.sqrt(DRAWS)


def test_dividing_by_too_many_draws_would_be_seen():
    """The tests above have the power to see a bias of a few per cent."""
    weight, probability = CASES["uneven"]
    drawn = 0.97 * sample(weight, probability, 2)
    error = drawn.std(axis=0) / np.sqrt(DRAWS)
    assert np.any(np.abs(drawn.mean(axis=0) - weight) > 5 * error)


@given(st.integers(1, 12), st.integers(0, 14), st.integers(0, 50))
@settings(deadline=None)
def test_exact_number_of_distinct_weights(fan_in, count, seed):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((30, fan_in)) * (rng.random((30, fan_in)) < 0.8)
    probability = rng.random((30, fan_in)) * (rng.random((30, fan_in)) < 0.8)
    drawn = sample_halves(weight, probability, np.full(30, count), seed)
    candidates = ((weight != 0) & (probability > 0)).sum(axis=1)
    np.testing.assert_array_equal((drawn != 0).sum(axis=1), np.minimum(count, candidates))
    assert np.all(drawn * weight >= 0), "a sign changed"


def test_rows_that_need_no_sampling_are_kept_whole():
    weight = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    probability = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    drawn = sample_halves(weight, probability, np.array([3, 2, 0]), 0)
    np.testing.assert_array_equal(drawn, [[1, 2, 3], [1, 0, 3], [0, 0, 0]])


def test_rows_are_sampled_independently():
    drawn = sample([1.0, 1.0], [1.0, 1.0], 1)
    assert 0.45 < (drawn[:, 0] > 0).mean() < 0.55


def test_probabilities_far_apart():
    """Draws of the likely ones are counted in the billions before a rare one turns up."""
    weight, probability = [1.0, 1.0, 1.0, 1.0], [0.7, 0.3, 1e-30, 1e-30]
    drawn = sample(weight, probability, 2, draws=500)
    assert np.all(np.isfinite(drawn))
    np.testing.assert_allclose(drawn[:, :2], 1, rtol=1e-4)
    assert np.all(drawn[:, 2:] == 0)


def test_a_row_does_not_change_with_the_others():
    """Rounding may change which rows are sampled, and how many weights they keep."""
    rng = np.random.default_rng(0)
    weight, probability = rng.standard_normal((9, 12)), rng.random((9, 12))
    counts = np.arange(9) % 5 + 2
    every = sample_halves(weight, probability, counts, 3, np.arange(9))
    some = np.array([1, 2, 6, 8])
    other = sample_halves(weight[some], probability[some], counts[some], 3, some)
    np.testing.assert_array_equal(other, every[some])


def test_same_seed_same_draws():
    weight, probability = CASES["uneven"]
    first, second, other = (sample(weight, probability, 2, seed, 100) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert np.any(first != other)
