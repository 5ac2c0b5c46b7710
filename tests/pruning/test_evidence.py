"""What a neuron's error counts, how it is damped, and which neurons stand for all."""

from dataclasses import replace

import numpy as np
import pytest
from problems import layer, mixed_inputs, regression

from onnx_sipp.pruning.cells import Cells
from onnx_sipp.pruning.evidence import Evidence, damping_for, product_work, spread_rows
from onnx_sipp.pruning.patterns import Blocks
from onnx_sipp.pruning.removal import greedy_work


def evidence(seed=0, shape=(2, 4, 6), count=300, samples=16):
    problem, weight = layer(seed, shape, count)
    gain = np.random.default_rng(seed).uniform(0.5, 2, shape[:2])
    return Evidence(weight, np.abs(weight), problem, None, gain, samples)


def test_damping_is_half_the_inputs_over_the_samples_that_are_independent():
    """All patches count, but no more than 64 of a sample."""
    found = evidence(count=300)
    assert damping_for(replace(found, samples=100)) == pytest.approx(0.03 + 0.5 * 6 / 300)
    assert damping_for(replace(found, samples=2)) == pytest.approx(0.03 + 0.5 * 6 / 128)
    # Samples of which nothing is known: as if there were one.
    assert damping_for(replace(found, samples=0)) == pytest.approx(0.03 + 0.5 * 6)
    assert damping_for(Evidence.unseen(found.weight, found.sensitivity)) == 0.03


def test_work_is_multiplications():
    assert product_work((2, 3, 10)) == 2 * 3 * 10 * 10
    assert greedy_work((2, 3, 10)) == pytest.approx(2 * 3 * 10**3 / 3)


def test_by_neuron_errors_are_relative_to_what_the_neuron_does():
    found = replace(evidence(), by_neuron=True)
    spread = found.fit.spread()
    np.testing.assert_allclose(found.rate, 1 / spread)
    assert found.power == pytest.approx(found.gain.size)
    # Neurons that hardly vary count as if they varied a millionth as much as the liveliest.
    found.fit.power[0, 1] = found.fit.mean_target[0, 1] ** 2
    liveliest = found.fit.spread().max()
    np.testing.assert_allclose(found.rate[0, 1], 1e6 / liveliest)
    found.gain[1, 2] = 0
    assert found.rate[1, 2] == 0
    # Where none varies, all count alike.
    still = replace(found.fit, power=found.fit.mean_target**2)
    np.testing.assert_array_equal(replace(found, fit=still).rate, found.gain != 0)


def test_without_a_new_bias_the_means_are_part_of_the_error():
    rng = np.random.default_rng(1)
    inputs = mixed_inputs(rng, 1, 6, 200) + 2
    weight = rng.standard_normal((1, 3, 6))
    targets = weight @ inputs + 5
    centred = regression(inputs, targets, centred=True)
    found = replace(evidence(shape=(1, 3, 6)), weight=weight, fit=centred, bias_is_new=True)
    without = found.without_bias()
    assert not without.bias_is_new
    assert not without.fit.centred
    np.testing.assert_allclose(without.fit.errors(weight), 25)
    np.testing.assert_allclose(found.fit.errors(weight), 0, atol=1e-9)
    # A bias that is there already stays.
    there = replace(found, bias_is_new=False)
    assert there.without_bias() is there


@pytest.mark.parametrize("band", [1, 2, 4])
def test_neurons_that_stand_for_all_are_whole_bands_from_first_to_last(band):
    rows = spread_rows(48, 12, band)
    assert rows.size == 12
    bands = rows.reshape(-1, band)
    assert np.all(bands == bands[:, :1] + np.arange(band))
    assert np.all(bands[:, 0] % band == 0)
    assert (rows[0], rows[-1]) == (0, 47)
    steps = np.diff(bands[:, 0] // band)
    assert np.ptp(steps) <= 1


def test_a_band_larger_than_the_count_is_taken_whole():
    assert spread_rows(16, 3, 8).tolist() == list(range(8))


def test_layers_that_no_sample_reached_go_by_their_weights():
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((2, 4, 6))
    cells = Cells.of(Blocks(2, 1), 1)
    found = Evidence.unseen(weight, np.ones(weight.shape), cells)
    assert not found.is_seen
    assert found.samples == 0
    assert found.cells is cells
    assert (found.units, found.alive) == (24, 24)
    pruned = np.where(rng.random(weight.shape) < 0.5, weight, 0)
    lost = np.sum((weight - pruned) ** 2) / np.sum(weight**2)
    assert found.error(pruned) == pytest.approx(lost)
    assert evidence().is_seen


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_errors_are_relative_whatever_the_units(factor):
    found = evidence(3)
    pruned = np.where(np.random.default_rng(3).random(found.weight.shape) < 0.5, found.weight, 0)
    fit = replace(
        found.fit, cross=found.fit.cross * factor, power=found.fit.power * factor**2,
        mean_target=found.fit.mean_target * factor,
    )  # fmt: skip
    scaled = replace(found, weight=found.weight * factor, fit=fit)
    assert scaled.error(pruned * factor) == pytest.approx(found.error(pruned))
    assert 0.01 < found.error(pruned) < 10
