"""Second moments and output errors against numpy in float64."""

import numpy as np
import pytest

from onnx_sipp.statistics.moments import OutputError, SecondMoment
from onnx_sipp.unfolding.base import Patches


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def some_patches(rng, groups=2, fan_in=5, samples=3, patches=7):
    return Patches(rng.standard_normal((groups, fan_in, samples * patches), np.float32), samples)


def test_second_moment(rng):
    parts = [some_patches(rng), some_patches(rng, samples=1, patches=4)]
    moment = SecondMoment(2, 5)
    for part in parts:
        moment.update(part)
    columns = np.concatenate([part.columns for part in parts], axis=2).astype(np.float64)
    np.testing.assert_allclose(moment.result(), (columns**2).mean(axis=2), rtol=1e-6)


def test_second_moment_of_nothing():
    np.testing.assert_array_equal(SecondMoment(1, 3).result(), np.zeros((1, 3)))


def test_second_moment_of_a_single_patch(rng):
    patch = some_patches(rng, samples=1, patches=1)
    moment = SecondMoment(2, 5)
    moment.update(patch)
    np.testing.assert_allclose(moment.result(), patch.columns[..., 0] ** 2, rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_large_inputs_tell_the_same(rng):
    """Squares of 1e21 have no room in float32."""
    scale = np.float32(2.0**70)
    patches, weight = some_patches(rng), rng.standard_normal((2, 4, 5), np.float32)
    large = Patches(patches.columns * scale, patches.samples)
    moments, errors = [], []
    for seen in (patches, large):
        moment, error = SecondMoment(2, 5), OutputError(weight, 0.9 * weight)
        moment.update(seen)
        error.update(seen)
        moments.append(moment.result())
        errors.append(error.energies.ratio)
    np.testing.assert_allclose(moments[1], moments[0] * 2.0**140, rtol=1e-5)
    assert errors == pytest.approx([0.1, 0.1], rel=1e-5)


def test_second_moments_merge(rng):
    first, second, both = (SecondMoment(2, 5) for _ in range(3))
    for part, moment in ((some_patches(rng), first), (some_patches(rng, samples=1), second)):
        moment.update(part)
        both.update(part)
    first.merge(second)
    np.testing.assert_allclose(first.result(), both.result(), rtol=1e-12)


def test_second_moment_is_accurate_over_long_rows(rng):
    columns = (1 + 0.1 * rng.standard_normal((1, 2, 300_000))).astype(np.float32)
    moment = SecondMoment(1, 2)
    moment.update(Patches(columns, 1))
    exact = (columns.astype(np.float64) ** 2).mean(axis=2)
    np.testing.assert_allclose(moment.result(), exact, rtol=1e-5)


def test_output_error(rng):
    weight, changed = rng.standard_normal((2, 2, 4, 5))
    shift = rng.standard_normal((2, 4))
    parts = [some_patches(rng), some_patches(rng)]
    error = OutputError(weight, changed, shift)
    for part in parts:
        error.update(part)
    columns = np.concatenate([part.columns for part in parts], axis=2).astype(np.float64)
    before = weight @ columns
    after = changed @ columns + shift[..., None]
    expected = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert error.energies.ratio == pytest.approx(expected, rel=1e-5)


def test_output_error_of_a_single_patch(rng):
    weight, changed = rng.standard_normal((2, 2, 4, 5))
    patch = some_patches(rng, samples=1, patches=1)
    error = OutputError(weight, changed)
    error.update(patch)
    expected = np.linalg.norm((changed - weight) @ patch.columns)
    expected /= np.linalg.norm(weight @ patch.columns)
    assert error.energies.ratio == pytest.approx(expected, rel=1e-5)


def test_no_change_is_no_error(rng):
    weight = rng.standard_normal((2, 4, 5))
    error = OutputError(weight, weight.copy())
    error.update(some_patches(rng))
    assert error.energies.ratio == 0


def test_a_small_change_of_float64_weights_is_seen(rng):
    weight = rng.standard_normal((2, 4, 5))
    error = OutputError(weight, weight * (1 + 1e-10))
    error.update(some_patches(rng))
    assert error.energies.ratio == pytest.approx(1e-10, rel=1e-3)


def test_output_that_was_zero():
    weight = np.zeros((1, 1, 2))
    ones = Patches(np.ones((1, 2, 3), np.float32), 1)
    same, other = OutputError(weight, weight), OutputError(weight, weight + 1)
    for error in (same, other):
        assert np.isnan(error.energies.ratio)
        error.update(Patches(np.ones((1, 2, 0), np.float32), 1))
        assert np.isnan(error.energies.ratio)
        error.update(ones)
    assert same.energies.ratio == 0
    assert other.energies.ratio == np.inf
