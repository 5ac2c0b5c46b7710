"""The bounds: their formulas, and whether they hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_sipp.pruning.certificate import (
    DELTA,
    C,
    Certificate,
    certify,
    epsilon_sampled,
    half_counts,
    half_sums,
    log_factor,
    samples_for,
    samples_needed,
)
from onnx_sipp.pruning.deciding import decide
from onnx_sipp.pruning.importance import LayerStatistics
from onnx_sipp.pruning.methods import Goal
from onnx_sipp.statistics.moments import SecondMoment
from onnx_sipp.statistics.sensitivity import SensitivityAccumulator
from onnx_sipp.unfolding.base import Patches

# Formulas


def test_halves_without_weights_are_no_part_of_the_median():
    epsilon, sums = np.array([[[0.0, 0.2, 0.4]], [[0.0, 0.0, 0.6]]]), np.zeros((2, 1, 3))
    sums[epsilon > 0] = 1
    sums[1, 0, 1] = 1  # kept as a whole
    found = Certificate(epsilon, sums, DELTA, 10, 10)
    assert found.worst == 0.6
    assert found.median == pytest.approx(0.3)


def test_samples_needed_is_what_the_authors_report():
    """THEORY: 152 for LeNet300-100 and 183 for ResNet20 on CIFAR-10, at δ = 1e-16."""
    assert samples_needed([300, 100, 10]) == 152
    resnet20 = [16 * 32 * 32] * 7 + [32 * 16 * 16] * 6 + [64 * 8 * 8] * 6 + [10]
    assert samples_needed(resnet20) == 183


def test_log_factor():
    assert log_factor(1024) == pytest.approx(3 * np.log(8 * 1025 / 1e-16))
    assert log_factor(4, 0.1, kappa=2) == pytest.approx(3 * np.log(8 * 5 * 2 / 0.1))


@given(
    st.floats(1e-3, 1e3),
    st.floats(1e-3, 1e3),
    st.floats(1, 200),
)
def test_samples_for_inverts_the_bound(total, epsilon, factor):
    sums = np.array([total])
    counts = samples_for(sums, epsilon, factor)
    assert epsilon_sampled(sums, counts, factor)[0] <= epsilon
    if counts[0] > 1:
        fewer = counts - 1 - (counts * 1e-8).astype(np.int64)
        assert epsilon_sampled(sums, fewer, factor)[0] >= epsilon * (1 - 1e-7)


def test_samples_for_the_impossible():
    sums = np.array([0.0, 1.0])
    with np.errstate(all="raise"):
        endless = samples_for(sums, 0, 3.0)
    assert endless[0] == 0
    assert endless[1] > 2**61
    many = samples_for(sums, 1e-12, 100.0)
    assert many[0] == 0
    assert many[1] > 2**61, "a count overflowed"


def test_epsilon_sampled_at_the_ends():
    sums, counts = np.array([0.0, 1.0, 1.0]), np.array([0, 0, 5])
    epsilon = epsilon_sampled(sums, counts, 3.0)
    assert epsilon[0] == 0
    assert epsilon[1] == np.inf
    assert epsilon[2] == pytest.approx(0.2 + np.sqrt(0.2 * 6.2))


def test_halves():
    weight = np.array([[[1.0, -2.0, 0.0, 3.0]]])
    values = np.array([[[10.0, 20.0, 40.0, 80.0]]])
    np.testing.assert_array_equal(half_sums(values, weight), [[[90.0]], [[20.0]]])
    np.testing.assert_array_equal(half_counts(values > 15, weight), [[[1]], [[1]]])


def some_layer(seed=0, shape=(2, 3, 8)):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape)
    return weight, rng.random(shape)


def test_certificate_of_a_mask():
    weight, sensitivity = some_layer()
    kept = np.random.default_rng(1).random(weight.shape) < 0.5
    found = certify(
        weight, sensitivity, np.where(kept, weight, 0), None, patches=4, samples=10, needed=20
    )
    np.testing.assert_allclose(found.epsilon, C * half_sums(sensitivity * ~kept, weight))
    np.testing.assert_allclose(found.sensitivity_sums, half_sums(sensitivity, weight))
    assert (found.delta, found.samples_given, found.samples_needed) == (DELTA, 10, 20)
    assert found.worst == found.epsilon.max()
    assert found.median == np.median(found.epsilon)


@pytest.mark.parametrize("threads", [1, 3])
def test_neurons_are_looked_at_in_parts(monkeypatch, threads):
    weight, sensitivity = some_layer(shape=(2, 7, 8))
    given = {"sampled": None, "patches": 4, "samples": 10, "needed": 20}
    whole = certify(weight, sensitivity, 0.5 * weight, **given)
    monkeypatch.setattr("onnx_sipp.threads._PART", 32)
    parted = certify(weight, sensitivity, 0.5 * weight, **given, threads=threads)
    assert np.array_equal(parted.epsilon, whole.epsilon)
    assert np.array_equal(parted.sensitivity_sums, whole.sensitivity_sums)


def test_certificate_of_nothing_changed():
    weight, sensitivity = some_layer()
    found = certify(weight, sensitivity, weight, None, patches=1, samples=1, needed=1)
    assert found.worst == 0


def test_certificate_of_changed_weights():
    """Weights that are scaled cost as much of their sensitivity as they change."""
    weight, sensitivity = some_layer()
    found = certify(weight, sensitivity, 1.25 * weight, None, patches=1, samples=1, needed=1)
    np.testing.assert_allclose(found.epsilon, C * 0.25 * half_sums(sensitivity, weight))


def test_certificate_of_sampled_halves():
    weight, sensitivity = some_layer()
    sensitivity[0, 0, :3] = 0  # never drawn, so it does not count even where it is kept
    sampled = np.zeros((2, 2, 3), np.bool_)
    sampled[:, 0] = True
    kept = np.random.default_rng(2).random(weight.shape) < 0.6
    changed = np.where(kept, weight * 2, 0)
    changed[1:] = weight[1:] * 2
    found = certify(weight, sensitivity, changed, sampled, patches=4, samples=1, needed=1)
    counts = half_counts(kept & (sensitivity > 0), weight)
    bound = epsilon_sampled(half_sums(sensitivity, weight), counts, log_factor(4))
    np.testing.assert_allclose(found.epsilon[:, 0], bound[:, 0])
    np.testing.assert_allclose(found.epsilon[:, 1], C * half_sums(sensitivity, weight)[:, 1])


def test_certificate_of_a_layer_without_weights():
    nothing = np.zeros((1, 2, 3))
    found = certify(nothing, nothing, nothing, None, patches=1, samples=1, needed=1)
    assert (found.worst, found.median) == (0, 0)


# Whether they hold

FAILURE = 0.1
# An ε so much smaller would fail, so that the tests below have the power to see a wrong one.
TOO_SMALL = 0.05

INPUTS = {
    "uniform": lambda rng, shape: rng.random(shape, np.float32),
    "rectified": lambda rng, shape: np.maximum(rng.standard_normal(shape, np.float32), 0),
    "of both signs": lambda rng, shape: rng.standard_normal(shape, np.float32),
    "lognormal": lambda rng, shape: rng.lognormal(0, 1, shape).astype(np.float32),
}


def one_layer(rng, draw, patches, neurons=32, fan_in=150):
    """A random layer, calibrated on as many samples as the theory asks for."""
    weight = rng.standard_normal((1, neurons, fan_in), np.float32)
    needed = samples_needed([neurons * patches], FAILURE)
    sensitivities = [SensitivityAccumulator(weight, form) for form in ("max", "mean")]
    moment = SecondMoment(1, fan_in)
    seen = Patches(draw(rng, (1, fan_in, needed * patches)), needed)
    for accumulator in (*sensitivities, moment):
        accumulator.update(seen)
    largest, mean = (accumulator.result() for accumulator in sensitivities)
    statistics = LayerStatistics(weight, largest, mean, moment.result()[:, None], patches)
    return statistics, needed


def errors_and_bounds(rng, draw, goal, method, allocation, patches=1, fresh=25):
    """Relative error of every half on fresh inputs, and its ε.

    The error is the worst over the patches of an input and over the signs of what comes in.
    """
    layer, needed = one_layer(rng, draw, patches)
    (decision,) = decide([layer], goal, method, allocation, rng)
    certificate = certify(
        layer.weight,
        layer.sensitivity_max,
        decision.weight,
        decision.sampled,
        patches=patches,
        samples=needed,
        needed=needed,
        delta=FAILURE,
    )
    inputs = draw(rng, (layer.weight.shape[2], fresh * patches)).astype(np.float64)
    errors = []
    for sign in (1, -1):
        half = np.maximum(sign * layer.weight[0], 0).astype(np.float64)
        changed = np.where(half > 0, np.abs(decision.weight[0]), 0)
        for part in (np.maximum(inputs, 0), np.maximum(-inputs, 0)):
            before, after = half @ part, changed @ part
            errors.append(np.abs(after - before) / np.where(before > 0, before, 1))
    worst = np.stack(errors).reshape(2, 2, -1, fresh, patches).max(axis=(1, 4))
    return worst, np.broadcast_to(certificate.epsilon[:, 0, :, None], worst.shape), decision


def gathered(draw, goal, method, allocation, patches=1):
    """The same for at least 10⁴ cases, each calibration and each sampling drawn anew."""
    rng = np.random.default_rng(0)
    runs = [errors_and_bounds(rng, draw, goal, method, allocation, patches) for _ in range(8)]
    errors, bounds = (np.concatenate([run[i].ravel() for run in runs]) for i in (0, 1))
    assert errors.size >= 10_000
    return errors, bounds, np.mean([run[2].sampled.mean() for run in runs])


METHODS = [
    ("sipp-rand", "sipp"),
    ("sipp-hybrid", "sipp"),
    ("sipp-det", "global"),
    ("sipp-det", "sipp"),
    ("magnitude", "lamp"),
    ("wanda", "neuron"),
]


@pytest.mark.parametrize("draw", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize(("method", "allocation"), METHODS)
def test_the_certificate_holds(draw, method, allocation):
    goal = Goal(keep=round(0.4 * 32 * 150), delta=FAILURE)
    errors, bounds, sampled = gathered(draw, goal, method, allocation)
    assert np.mean(errors > bounds) <= FAILURE
    assert np.mean(errors > TOO_SMALL * bounds) > FAILURE
    assert (sampled > 0) == (allocation == "sipp" and method != "sipp-det")


@pytest.mark.parametrize("method", ["sipp-rand", "magnitude"])
def test_the_certificate_holds_over_the_patches_of_an_input(method):
    goal = Goal(keep=round(0.4 * 32 * 150), delta=FAILURE)
    allocation = "sipp" if method == "sipp-rand" else "layer"
    errors, bounds, _ = gathered(INPUTS["rectified"], goal, method, allocation, patches=9)
    assert np.mean(errors > bounds) <= FAILURE
    assert np.mean(errors > TOO_SMALL * bounds) > FAILURE


@pytest.mark.parametrize("method", ["sipp-rand", "sipp-hybrid", "sipp-det"])
@pytest.mark.parametrize("epsilon", [0.3, 1.5])
def test_the_certificate_holds_where_it_is_the_goal(method, epsilon):
    goal = Goal(epsilon=epsilon, delta=FAILURE)
    errors, bounds, _ = gathered(INPUTS["uniform"], goal, method, "sipp")
    assert np.all(bounds <= epsilon)
    assert np.mean(errors > epsilon) <= FAILURE


def test_inputs_unlike_the_calibration_break_the_certificate():
    """The bound is about fresh inputs of the same distribution, and cannot hold for others."""

    def changing(rng, shape):
        changing.calls += 1
        scale = np.ones(shape[-2])
        half = slice(0, len(scale) // 2) if changing.calls % 2 else slice(len(scale) // 2, None)
        scale[half] = 1e-4  # what calibration hardly saw is all there is afterwards
        return (rng.random(shape, np.float32) * scale[:, None]).astype(np.float32)

    changing.calls = 0
    goal = Goal(keep=round(0.5 * 32 * 150), delta=FAILURE)
    errors, bounds, _ = gathered(changing, goal, "sipp-det", "sipp")
    assert np.mean(errors > bounds) > FAILURE
