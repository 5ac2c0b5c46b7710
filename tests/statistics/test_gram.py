"""Gram matrices and least squares against numpy in float64."""

import pickle

import numpy as np
import pytest

from onnx_sipp.calibration.multiplying import RuntimeMultiplier
from onnx_sipp.statistics.cross import Cross
from onnx_sipp.statistics.gram import WIDE, Gram, gram_bytes
from onnx_sipp.statistics.multiplying import NUMPY
from onnx_sipp.statistics.regression import Regression

SHAPE = (2, 3, 5)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def some_data(rng, count=200, shape=SHAPE):
    """Inputs and targets that are related, and have means."""
    groups, outs, fan_in = shape
    columns = 0.5 + rng.standard_normal((groups, fan_in, count), np.float32)
    weight = rng.standard_normal((groups, outs, fan_in), np.float32)
    targets = weight @ columns + 0.3 * rng.standard_normal((groups, outs, count), np.float32) + 2
    return columns, targets


def sums(pieces, multiplier=NUMPY):
    columns, targets = pieces[0]
    gram = Gram(columns.shape[0], columns.shape[1], multiplier)
    cross = Cross(columns.shape[0], targets.shape[1], columns.shape[1], multiplier)
    for columns, targets in pieces:
        gram.update(columns)
        cross.update(columns, targets)
    return gram, cross


def of(columns, targets, *, centred):
    return Regression.of(*sums([(columns, targets)]), centred=centred)


def test_sums_are_those_of_all_patches(rng):
    pieces = [some_data(rng), some_data(rng, 7)]
    gram, cross = sums(pieces)
    a, t = (np.concatenate(side, axis=2).astype(np.float64) for side in zip(*pieces, strict=True))
    np.testing.assert_allclose(gram.products, a @ a.transpose(0, 2, 1), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(gram.sums, a.sum(axis=2), rtol=1e-6)
    np.testing.assert_allclose(cross.products, t @ a.transpose(0, 2, 1), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(cross.sums, t.sum(axis=2), rtol=1e-6)
    np.testing.assert_allclose(cross.squares, (t**2).sum(axis=2), rtol=1e-6)
    assert gram.count == 207


def test_accumulators_merge(rng):
    pieces = [some_data(rng) for _ in range(3)]
    gram, cross = sums(pieces)
    first, second = sums(pieces[:1]), sums(pieces[1:])
    for own, other in zip(first, second, strict=True):
        own.merge(other)
    for merged, whole in ((first[0], gram), (first[1], cross)):
        np.testing.assert_allclose(merged.products, whole.products, rtol=1e-12)
        np.testing.assert_allclose(merged.sums, whole.sums, rtol=1e-12)
    np.testing.assert_allclose(first[1].squares, cross.squares, rtol=1e-12)
    assert first[0].count == gram.count


def test_nothing_seen():
    problem = Regression.of(Gram(1, 3), Cross(1, 2, 3), centred=True)
    assert problem.count == 0
    np.testing.assert_array_equal(problem.errors(np.ones((1, 2, 3))), np.zeros((1, 2)))


@pytest.mark.parametrize("centred", [False, True])
def test_the_normal_equations_are_those_of_direct_least_squares(rng, centred):
    columns, targets = some_data(rng)
    problem = of(columns, targets, centred=centred)
    for group in range(2):
        a, t = columns[group].T.astype(np.float64), targets[group].T.astype(np.float64)
        design = np.column_stack([a, np.ones(len(a))]) if centred else a
        best, residues, _, _ = np.linalg.lstsq(design, t)
        found = np.linalg.solve(problem.gram[group], problem.cross[group].T)
        np.testing.assert_allclose(found, best[:5], rtol=1e-3, atol=1e-4)
        weight = np.zeros(SHAPE)
        weight[group] = found.T
        np.testing.assert_allclose(problem.errors(weight)[group], residues / len(a), rtol=1e-3)
        intercept = best[5] if centred else np.zeros(3)
        np.testing.assert_allclose(problem.best_bias(weight)[group], intercept, atol=1e-3)


def brute_force(columns, targets, weight, bias):
    left = targets.astype(np.float64) - weight @ columns.astype(np.float64) - bias[..., None]
    return (left**2).mean(axis=2)


@pytest.mark.parametrize("fan_in", [5, WIDE])
@pytest.mark.parametrize("centred", [False, True])
def test_errors(rng, centred, fan_in):
    columns, targets = some_data(rng, shape=(2, 3, fan_in))
    weight, bias = rng.standard_normal((2, 3, fan_in)), rng.standard_normal((2, 3))
    problem = of(columns, targets, centred=centred)
    best = problem.best_bias(weight)
    expected = brute_force(columns, targets, weight, best)
    np.testing.assert_allclose(problem.errors(weight), expected, rtol=1e-4)
    np.testing.assert_allclose(problem.errors_with(weight, best), expected, rtol=1e-4)
    expected = brute_force(columns, targets, weight, bias)
    np.testing.assert_allclose(problem.errors_with(weight, bias), expected, rtol=1e-4)


@pytest.mark.parametrize("centred", [False, True])
def test_spread_is_the_variance(rng, centred):
    columns, targets = some_data(rng)
    spread = of(columns, targets, centred=centred).spread()
    np.testing.assert_allclose(spread, targets.astype(np.float64).var(axis=2), rtol=1e-4)


@pytest.mark.parametrize("count", [3, 1000, 20_000])
@pytest.mark.parametrize("value", [0.3, -17.7, 1e4, 0.1])
def test_inputs_that_do_not_vary_are_left_to_the_bias(rng, value, count):
    columns, targets = some_data(rng, count)
    columns[:, 1], columns[:, 3] = value, 0
    problem = of(columns, targets, centred=True)
    for still in (1, 3):
        assert np.all(problem.gram[:, still] == 0)
        assert np.all(problem.gram[:, :, still] == 0)
        assert np.all(problem.cross[:, :, still] == 0)
    assert np.all(np.einsum("gff->gf", problem.gram)[:, [0, 2, 4]] > 0)


def test_some_neurons(rng):
    problem = of(*some_data(rng), centred=True)
    weight, rows = rng.standard_normal(SHAPE), np.array([0, 2])
    some = problem.of_neurons(rows)
    np.testing.assert_allclose(some.errors(weight[:, rows]), problem.errors(weight)[:, rows])
    np.testing.assert_allclose(some.best_bias(weight[:, rows]), problem.best_bias(weight)[:, rows])


def test_means_can_be_put_back(rng):
    columns, targets = some_data(rng)
    back = of(columns, targets, centred=True).uncentred()
    plain = of(columns, targets, centred=False)
    for name in ("gram", "cross", "power", "mean_input", "mean_target"):
        np.testing.assert_allclose(getattr(back, name), getattr(plain, name), rtol=1e-5, atol=1e-5)
    assert not back.centred
    assert plain.uncentred() is plain


def test_the_mean_of_an_input_that_does_not_vary_is_put_back_too(rng):
    columns, targets = some_data(rng)
    columns[:, 2] = 0.75
    back = of(columns, targets, centred=True).uncentred()
    plain = of(columns, targets, centred=False)
    np.testing.assert_allclose(back.gram, plain.gram, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(back.cross, plain.cross, rtol=1e-4, atol=1e-3)


# --- wide inputs -------------------------------------------------------------------------------


@pytest.fixture(params=["wide", "very wide"])
def wide(monkeypatch, request):
    """Inputs are wide, or even very wide, from 5 on; those are worked on two at a time."""
    monkeypatch.setattr("onnx_sipp.statistics.gram.WIDE", 5)
    for module in ("gram", "input_moments"):
        monkeypatch.setattr(f"onnx_sipp.statistics.{module}.ROWS", 2)
    if request.param == "very wide":
        monkeypatch.setattr("onnx_sipp.statistics.gram.VERY_WIDE", 4)
    return request.param


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("counts", [(2,), (1, 1), (200,), (1, 1, 90), (90, 7, 1)])
def test_wide_inputs_give_the_same(rng, wide, counts, centred):
    pieces = [some_data(rng, count) for count in counts]
    for columns, _ in pieces:
        columns[:, 3] = 0.7  # an input that does not vary ...
    gram, cross = sums(pieces)
    a, t = (np.concatenate(side, axis=2).astype(np.float64) for side in zip(*pieces, strict=True))
    np.testing.assert_allclose(gram.products, a @ a.transpose(0, 2, 1), rtol=1e-4, atol=1e-3)
    assert (gram.moments(centred=centred).factor is None) == (sum(counts) > 2)
    assert gram.products.dtype == (np.float64 if wide == "wide" and sum(counts) > 2 else np.float32)
    found = Regression.of(gram, cross, centred=centred)
    if centred:
        a, t = (values - values.mean(axis=2, keepdims=True) for values in (a, t))
    h, b = (values @ a.transpose(0, 2, 1) / a.shape[2] for values in (a, t))
    np.testing.assert_allclose(found.gram, h, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.cross, b, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.diagonal, np.einsum("gff->gf", h), rtol=1e-3, atol=1e-4)
    if centred:  # ... leaves nothing behind
        assert np.all(found.gram[:, 3] == 0)
        assert np.all(found.diagonal[:, 3] == 0)
        assert np.all(found.cross[:, :, 3] == 0)
    weight = rng.standard_normal(SHAPE)
    direct = np.mean((t - weight @ a) ** 2, axis=2)
    np.testing.assert_allclose(found.errors(weight), direct, rtol=1e-2)
    for dtype in (np.float32, np.float64):
        x = weight[1].astype(dtype)
        product = found.moments.product(1, x)
        assert product.dtype == dtype
        np.testing.assert_allclose(product, x @ h[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("count", [2, 50])
def test_both_kinds_of_moments_of_one_gram(rng, wide, monkeypatch, first, count):
    monkeypatch.setattr("onnx_sipp.statistics.gram._COPIED", 0)
    columns, _ = some_data(rng, count)
    gram = Gram(*columns.shape[:2])
    gram.update(columns)
    a = columns.astype(np.float64)
    for centred in (first, not first):
        found = gram.moments(centred=centred).dense
        own = a - a.mean(axis=2, keepdims=True) if centred else a
        expected = own @ own.transpose(0, 2, 1) / count
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("counts", [(1, 1), (2, 60), (60, 2), (60, 60)])
def test_wide_accumulators_merge(rng, wide, counts):
    pieces = [some_data(rng, count) for count in counts]
    whole, _ = sums(pieces)
    first, second = (sums([piece])[0] for piece in pieces)
    before = second.products.copy()
    first.merge(second)
    np.testing.assert_allclose(first.products, whole.products, rtol=1e-4)
    np.testing.assert_allclose(second.products, before)
    assert first.count == whole.count


def test_patches_stand_for_a_matrix_that_would_be_too_large(rng, wide, monkeypatch):
    monkeypatch.setattr("onnx_sipp.statistics.gram.MOST_BYTES", 4 * 25 - 1)
    gram, _ = sums([some_data(rng, 40)])
    assert gram.moments(centred=False).factor.shape == (2, 5, 40)


@pytest.mark.parametrize(
    ("fan_in", "patches", "expected"),
    [
        (2048, 10**6, 0),
        (4096, 100, 4 * 4096 * 100),
        (4096, 2048, 4 * 4096 * 2048),
        (4096, 2049, 2 * 4 * 4096**2),
        (16384, 100, 4 * 16384 * 100),
        (16384, 10**6, 256 << 20),
    ],
)
def test_memory_of_the_inputs(fan_in, patches, expected):
    assert gram_bytes(fan_in, patches) == expected


# --- other multipliers -------------------------------------------------------------------------


class Counting:
    """Multiplies in onnxruntime, and knows the shapes of what it was given to hold."""

    def __init__(self):
        self.held = []

    def hold(self, matrix):
        assert matrix.dtype == np.float32
        self.held.append(matrix.shape)
        return RuntimeMultiplier("CPUExecutionProvider").hold(matrix)


def test_narrow_inputs_stay_with_numpy(rng):
    counting, data = Counting(), some_data(rng, shape=(2, 3, WIDE - 1))
    problem = Regression.of(*sums([data], counting), centred=True)
    problem.uncentred().moments.product(0, np.ones((1, WIDE - 1), np.float32))
    assert counting.held == []


@pytest.mark.parametrize("centred", [False, True])
def test_wide_inputs_are_multiplied_by_whom_they_are_given(rng, centred):
    counting, shape = Counting(), (2, 3, WIDE)
    pieces = [some_data(rng, shape=shape), some_data(rng, 7, shape=shape)]
    found, expected = sums(pieces, counting), sums(pieces)
    both = [(WIDE, 200)] * 2 + [(2, WIDE, 200)] + [(WIDE, 7)] * 2 + [(2, WIDE, 7)]
    assert counting.held == both
    for own, other in zip(found, expected, strict=True):
        assert own.products.dtype == other.products.dtype
        np.testing.assert_allclose(own.products, other.products, rtol=1e-5, atol=1e-3)
    own, other = (Regression.of(*made, centred=centred) for made in (found, expected))
    assert counting.held == both
    for problem, reference in ((own, other), (own.uncentred(), other.uncentred())):
        weight, before = rng.standard_normal(shape), len(counting.held)
        errors = reference.errors(weight)
        np.testing.assert_allclose(problem.errors(weight), errors, rtol=1e-4)
        assert counting.held[before:] == [(WIDE, WIDE)] * 2
    x = rng.standard_normal((4, WIDE))  # a product in float64 stays with numpy
    before = len(counting.held)
    np.testing.assert_allclose(own.moments.product(1, x), x @ own.gram[1], rtol=1e-12)
    assert len(counting.held) == before


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("counts", [(2,), (90, 7, 1)])
def test_few_patches_of_them_too(rng, wide, counts, centred):
    counting, pieces = Counting(), [some_data(rng, count) for count in counts]
    own, other = (
        Regression.of(*sums(pieces, multiplier), centred=centred)
        for multiplier in (counting, NUMPY)
    )
    np.testing.assert_allclose(own.cross, other.cross, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(own.gram, other.gram, rtol=1e-4, atol=1e-4)
    for problem, reference in ((own, other), (own.uncentred(), other.uncentred())):
        x, before = rng.standard_normal((3, 5), np.float32), len(counting.held)
        expected = reference.moments.product(1, x)
        np.testing.assert_allclose(problem.moments.product(1, x), expected, rtol=1e-3, atol=1e-3)
        assert len(counting.held) == before + 1


def test_sums_that_were_sent_go_on_there(rng):
    pieces = [some_data(rng, shape=(1, 3, WIDE)) for _ in range(2)]
    found = sums(pieces[:1], RuntimeMultiplier("CPUExecutionProvider"))
    gram, cross = pickle.loads(pickle.dumps(found))
    gram.update(pieces[1][0])
    cross.update(*pieces[1])
    expected = sums(pieces)
    np.testing.assert_allclose(gram.products, expected[0].products, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(cross.products, expected[1].products, rtol=1e-5, atol=1e-3)
