"""Sensitivities against a slow literal transcription of their definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnx_sipp.statistics.sensitivity import EPSILON, SensitivityAccumulator
from onnx_sipp.unfolding.base import Patches

REDUCTIONS = ("mean", "max")


def literal(weight, samples, reduction):
    """The definition, one weight, patch and quadrant at a time, in float64.

    ``samples`` are ``[group, fan_in, patches]`` each.
    """
    weight = weight.astype(np.float64)
    result = np.zeros(weight.shape)
    for group, neuron, j in np.ndindex(*weight.shape):
        row = weight[group, neuron]
        half = np.maximum(row if row[j] > 0 else -row, 0)
        for sample in samples:
            for inputs in (np.maximum(sample[group], 0), np.maximum(-sample[group], 0)):
                shares = []
                for a in inputs.T.astype(np.float64):
                    z = half @ a
                    shares.append(half[j] * a[j] / z if z > EPSILON else 0.0)
                share = max(shares) if reduction == "max" else sum(shares) / len(shares)
                result[group, neuron, j] = max(result[group, neuron, j], share)
    return result


def measured(weight, pieces, reduction):
    accumulator = SensitivityAccumulator(weight, reduction)
    for piece in pieces:
        accumulator.update(piece)
    return accumulator.result()


def together(samples):
    return Patches(np.concatenate(samples, axis=2), len(samples))


def in_pieces(sample, parts):
    """One sample, in parts of about equal size."""
    parts = np.array_split(sample, min(parts, sample.shape[2]), axis=2)
    for index, part in enumerate(parts):
        yield Patches(np.ascontiguousarray(part), 1, complete=index == len(parts) - 1)


# Products of these, and sums of the products, stay clear of the threshold EPSILON on both sides.
TINY = float(np.float32(1e-6))
WEIGHTS = st.sampled_from([0.0, -0.0, TINY, -TINY, 0.5, -0.5, 2.0, -2.0, 1e3])
INPUTS = st.sampled_from([0.0, TINY, -TINY, 0.25, -0.25, 1.0, -1.0, 3.0, -3.0, 1e4])


@st.composite
def layers(draw):
    groups, outs, fan_in = draw(st.tuples(*[st.integers(1, n) for n in (3, 4, 6)]))
    count, patches = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    weight = draw(arrays(np.float32, (groups, outs, fan_in), elements=WEIGHTS))
    samples = draw(arrays(np.float32, (count, groups, fan_in, patches), elements=INPUTS))
    return weight, list(samples)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@given(layers())
@settings(deadline=None)
def test_equals_the_definition(reduction, layer):
    weight, samples = layer
    found = measured(weight, [together(samples)], reduction)
    np.testing.assert_allclose(found, literal(weight, samples, reduction), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@given(layers(), st.lists(st.integers(0, 3), min_size=4, max_size=4))
@settings(deadline=None)
def test_does_not_depend_on_how_samples_are_cut(reduction, layer, cuts):
    weight, samples = layer
    expected = measured(weight, [together(samples)], reduction)
    pieces = []
    for sample, cut in zip(samples, cuts, strict=False):
        pieces.extend(in_pieces(sample, cut) if cut else [Patches(sample, 1)])
    np.testing.assert_allclose(measured(weight, pieces, reduction), expected, rtol=2e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("groups", "outs", "fan_in", "patches"),
    [(1, 20, 50, 70), (1, 5, 30, 1), (4, 3, 9, 65), (16, 1, 9, 130), (1, 1, 1, 3)],
    ids=["conv", "one patch", "grouped", "depthwise", "single weight"],
)
def test_equals_the_definition_on_layers_of_some_size(reduction, groups, outs, fan_in, patches):
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((groups, outs, fan_in), np.float32)
    samples = [rng.standard_normal((groups, fan_in, patches), np.float32) for _ in range(3)]
    samples[1] = np.maximum(samples[1], 0)  # signs are decided per value, not per set
    found = measured(weight, [together(samples[:2]), Patches(samples[2], 1)], reduction)
    np.testing.assert_allclose(found, literal(weight, samples, reduction), atol=2e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_groups_do_not_mix(reduction):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 4, 6), np.float32)
    sample = rng.standard_normal((3, 6, 8), np.float32)
    whole = measured(weight, [Patches(sample, 1)], reduction)
    for group in range(3):
        alone = measured(
            weight[group : group + 1], [Patches(sample[group : group + 1], 1)], reduction
        )
        np.testing.assert_allclose(whole[group], alone[0], rtol=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_merged_accumulators_have_seen_both_sets(reduction):
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((1, 6, 10), np.float32)
    samples = [rng.standard_normal((1, 10, 5), np.float32) for _ in range(6)]
    first, second = (SensitivityAccumulator(weight, reduction) for _ in range(2))
    first.update(together(samples[:4]))
    second.update(together(samples[4:]))
    first.merge(second)
    np.testing.assert_allclose(
        first.result(), measured(weight, [together(samples)], reduction), rtol=1e-6
    )


def test_merging_in_the_middle_of_a_sample_is_refused():
    weight = np.ones((1, 1, 2), np.float32)
    half, other = (SensitivityAccumulator(weight, "mean") for _ in range(2))
    half.update(Patches(np.ones((1, 2, 3), np.float32), 1, complete=False))
    with pytest.raises(ValueError, match="not complete"):
        other.merge(half)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_shares_of_a_half_sum_to_one(reduction):
    """Σ_j g_ij = 1 for one sample of one patch, where the half has any input at all."""
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((1, 8, 12), np.float32)
    found = measured(
        weight, [Patches(np.abs(rng.standard_normal((1, 12, 1), np.float32)), 1)], reduction
    )
    for half in (weight > 0, weight < 0):
        np.testing.assert_allclose((found * half).sum(axis=2), 1, rtol=1e-5)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_dead_inputs_and_zero_weights_have_no_sensitivity(reduction):
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((1, 5, 7), np.float32)
    weight[:, 2] = 0
    weight[0, 3, 4] = 0
    columns = rng.standard_normal((1, 7, 9), np.float32)
    columns[:, 1] = 0
    found = measured(weight, [Patches(columns, 3)], reduction)
    assert np.all(found[:, :, 1] == 0)
    assert np.all(found[:, 2] == 0)
    assert found[0, 3, 4] == 0
    assert np.count_nonzero(found) == 6 * 4 - 1


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_vanishing_denominator_gives_no_share(reduction):
    weight = np.array([[[1.0, 2.0]]], np.float32)
    below = np.full((1, 2, 1), EPSILON / 8, np.float32)
    assert np.all(measured(weight, [Patches(below, 1)], reduction) == 0)
    above = np.full((1, 2, 1), EPSILON, np.float32)
    np.testing.assert_allclose(
        measured(weight, [Patches(above, 1)], reduction), [[[1 / 3, 2 / 3]]], rtol=1e-6
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nothing_seen_means_no_sensitivity(reduction):
    weight = np.ones((1, 2, 3), np.float32)
    assert np.all(SensitivityAccumulator(weight, reduction).result() == 0)
    empty = Patches(np.zeros((1, 3, 0), np.float32), 1)
    assert np.all(measured(weight, [empty], reduction) == 0)


def test_mean_divides_by_the_patches_of_each_sample():
    """Samples of different sizes each have their own mean; the largest counts."""
    weight = np.array([[[1.0, 1.0]]], np.float32)
    short = np.array([[[1.0], [0.0]]], np.float32)  # all of the share is the first weight's
    long = np.array([[[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]], np.float32)
    pieces = [Patches(short, 1), *in_pieces(long, 2)]
    np.testing.assert_allclose(
        measured(weight, pieces, "mean"), [[[1.0, (1 + 1 + 0.5) / 3]]], rtol=1e-6
    )


def test_weights_of_other_types():
    rng = np.random.default_rng(5)
    weight = rng.standard_normal((1, 4, 6)).astype(np.float16)
    sample = rng.standard_normal((1, 6, 3), np.float32)
    found = measured(weight, [Patches(sample, 1)], "max")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, literal(weight, [sample], "max"), rtol=1e-5)
