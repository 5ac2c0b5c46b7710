"""The public `sensitivities` and `allocate`."""

import numpy as np
import pytest
from small_models import make_model, mlp, weights

from onnx_sipp import SippError, UsageError, allocate, sensitivities
from onnx_sipp.analysis import Sensitivities
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.pruning.budget import Halves, objective
from onnx_sipp.pruning.certificate import half_counts, log_factor
from onnx_sipp.statistics.sensitivity import EPSILON

DATA = np.random.default_rng(0).standard_normal((20, 4), np.float32)


def literal(weight, samples, reduction):
    """The definition for ``weight[out, fan_in]`` and ``samples[n, patches, fan_in]``."""
    result = np.zeros(weight.shape)
    for sample in samples.astype(np.float64):
        for inputs in (np.maximum(sample, 0), np.maximum(-sample, 0)):
            for sign in (1, -1):
                half = np.maximum(sign * weight.astype(np.float64), 0)
                z = inputs @ half.T  # [patches, out]
                inverse = np.divide(1, z, out=np.zeros_like(z), where=z > EPSILON)
                shares = half[None] * inputs[:, None, :] * inverse[:, :, None]
                reduced = shares.max(axis=0) if reduction == "max" else shares.mean(axis=0)
                result = np.maximum(result, reduced)
    return result


@pytest.mark.parametrize("reduction", ["mean", "max"])
@pytest.mark.parametrize("batch_size", [None, 1, 7, 32])
@pytest.mark.parametrize("threads", [1, 2])
def test_gemms(reduction, batch_size, threads):
    found = sensitivities(mlp(), DATA, reduction=reduction, batch_size=batch_size, threads=threads)
    w1, w2 = weights(4, 8), weights(8, 3, seed=1)
    hidden = np.maximum(DATA @ w1 + weights(8), 0)
    assert list(found) == ["first", "second"]
    for name, inputs, weight in (("first", DATA, w1), ("second", hidden, w2)):
        assert found[name].shape == weight.shape
        assert found[name].dtype == np.float32
        expected = literal(weight.T, inputs[:, None], reduction).T
        np.testing.assert_allclose(found[name], expected, rtol=1e-4)
    assert (found.reduction, found.samples) == (reduction, 20)
    assert found.patches == {"first": 1, "second": 1}


@pytest.mark.parametrize("reduction", ["mean", "max"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions(reduction, groups):
    """Grouped and depthwise ones are normalised within the group; inputs have both signs."""
    weight = weights(8, 4 // groups, 3, 3)
    model = make_model(
        [("Conv", "x w", "y", {"name": "conv", "group": groups, "pads": [1, 1, 1, 1]})],
        {"w": weight},
        {"x": ["n", 4, "h", "v"]},
    )
    data = np.random.default_rng(1).standard_normal((5, 4, 6, 5), np.float32)
    found = sensitivities(model, data, reduction=reduction)
    padded = np.pad(data, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(5, 30, groups, -1)
    rows = weight.reshape(groups, 8 // groups, -1)
    expected = [literal(rows[g], patches[:, :, g], reduction) for g in range(groups)]
    np.testing.assert_allclose(
        found["conv"], np.stack(expected).reshape(weight.shape), rtol=1e-4, atol=1e-7
    )
    assert found.patches == {"conv": 30}


@pytest.mark.parametrize("reduction", ["mean", "max"])
@pytest.mark.parametrize("limit", [1, 200, 1 << 20])
def test_pieces_change_nothing(monkeypatch, reduction, limit):
    """A single sample may be too large to unfold at once."""
    monkeypatch.setattr("onnx_sipp.unfolding.base.pieces.__defaults__", (limit,))
    weight = weights(3, 2, 3)
    model = make_model(
        [("Conv", "x w", "c", {"name": "conv"}), ("MatMul", "c m", "y", {"name": "matmul"})],
        {"w": weight, "m": weights(9, 2)},
        {"x": ["n", 2, 11]},
    )
    data = np.random.default_rng(2).standard_normal((6, 2, 11), np.float32)
    found = sensitivities(model, data, reduction=reduction)
    windows = np.lib.stride_tricks.sliding_window_view(data, 3, axis=2)
    patches = windows.transpose(0, 2, 1, 3).reshape(6, 9, 6)
    expected = literal(weight.reshape(3, 6), patches, reduction).reshape(weight.shape)
    np.testing.assert_allclose(found["conv"], expected, rtol=1e-4)
    hidden = np.einsum("npf,of->nop", patches, weight.reshape(3, 6))
    expected = literal(weights(9, 2).T, hidden, reduction).T
    np.testing.assert_allclose(found["matmul"], expected, rtol=1e-3, atol=1e-6)
    assert found.patches == {"conv": 9, "matmul": 3}


def test_samples_of_different_lengths():
    """Each sample's mean is over its own patches."""
    model = make_model([("MatMul", "x w", "y", {"name": "layer"})], {"w": weights(4, 3)},
                       {"x": ["n", "s", 4]})  # fmt: skip
    rng = np.random.default_rng(0)
    data = [{"x": rng.standard_normal((1, length, 4), np.float32)} for length in (3, 3, 8, 1)]
    found = sensitivities(model, data, reduction="mean")
    expected = np.max([literal(weights(4, 3).T, feed["x"], "mean").T for feed in data], axis=0)
    np.testing.assert_allclose(found["layer"], expected, rtol=1e-4)
    assert found.patches == {"layer": 8}


def test_all_samples_are_used():
    many = np.random.default_rng(0).standard_normal((700, 4), np.float32)
    assert sensitivities(mlp(), many).samples == 700
    assert sensitivities(mlp(), many, num_samples=5).samples == 5


def test_bad_requests():
    with pytest.raises(UsageError, match="reduction"):
        sensitivities(mlp(), DATA, reduction="median")
    with pytest.raises(UsageError, match="threads must be a whole number, not '1'"):
        sensitivities(mlp(), DATA, threads="1")
    with pytest.raises(SippError, match="no weight that can be pruned"):
        sensitivities(make_model([("Relu", "x", "y")], {}), DATA)


@pytest.fixture
def measured():
    return sensitivities(mlp(), DATA)


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.9, 0.98])
def test_allocation_sums_to_the_budget(measured, sparsity):
    counts = allocate(mlp(), measured, sparsity=sparsity)
    assert {name: value.shape for name, value in counts.items()} == {
        "first": (2, 8),
        "second": (2, 3),
    }
    assert sum(int(value.sum()) for value in counts.values()) == 56 - round(sparsity * 56)
    for name, weight in (("first", weights(4, 8)), ("second", weights(8, 3, seed=1))):
        assert np.all(counts[name] <= [(weight > 0).sum(axis=0), (weight < 0).sum(axis=0)])


def test_weights_without_sensitivity_get_what_nobody_needs():
    data = DATA.copy()
    data[:, 1] = 0
    found = sensitivities(mlp(), data)
    counts = allocate(mlp(), found, keep=56)
    assert sum(int(value.sum()) for value in counts.values()) == 56
    needed = sum(np.count_nonzero(value) for value in found.values())
    assert needed <= 48
    for keep in (needed, needed - 5, needed + 3):
        counts = allocate(mlp(), found, keep=keep)
        assert sum(int(value.sum()) for value in counts.values()) == keep
    live = np.stack([(found["first"] * (half)).astype(bool).sum(axis=0)
                     for half in (weights(4, 8) > 0, weights(4, 8) < 0)])  # fmt: skip
    assert np.all(allocate(mlp(), found, keep=needed)["first"] == live)


def test_allocation_refuses_what_does_not_fit(measured):
    cases = [
        ({}, "either a sparsity"),
        ({"sparsity": 0.5, "keep": 3}, "either a sparsity"),
        ({"sparsity": 1.0}, "sparsity must be"),
        ({"keep": 57}, "57 cannot be kept"),
        ({"keep": -1}, "-1 cannot be kept"),
        ({"keep": 5, "delta": 0.0}, "delta"),
        ({"keep": 5.5}, "keep must be a whole number"),
        ({"sparsity": "0.5"}, "sparsity must be a number"),
    ]
    for options, message in cases:
        with pytest.raises(UsageError, match=message):
            allocate(mlp(), measured, **options)
    means = sensitivities(mlp(), DATA, reduction="mean")
    others = Sensitivities(
        {"first": np.zeros((2, 2), np.float32), "second": measured["second"]},
        reduction="max",
        patches=measured.patches,
        samples=1,
    )
    missing = Sensitivities({}, reduction="max", patches={}, samples=1)
    for wrong in (means, others, missing):
        with pytest.raises(UsageError, match="of this very model"):
            allocate(mlp(), wrong, keep=5)
    with pytest.raises(UsageError, match="what `sensitivities` gives .*, not dict"):
        allocate(mlp(), dict(measured), keep=5)


# Must show: the authors' own trackers and allocator on ResNet20

IMAGES = 16


@pytest.fixture(scope="module")
def reference(shared):
    file = shared / "reference" / "torchprune-resnet20-16images.npz"
    with np.load(file) as data:
        return {name: data[name] for name in data.files}


@pytest.fixture(scope="module")
def resnet20(shared):
    images = np.load(shared / "data" / "cifar10-calib.npz")["input"][:IMAGES]
    model = shared / "data" / "resnet20-cifar10.onnx"
    return model, {form: sensitivities(model, images, reduction=form) for form in ("mean", "max")}


def layer_names(reference):
    return [name.removesuffix("/max") for name in reference if name.endswith("/max")]


@pytest.mark.shared
@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_sensitivities_equal_the_authors(reference, resnet20, reduction):
    found = resnet20[1][reduction]
    names = layer_names(reference)
    assert len(names) == len(found) == 20
    for name, (layer, values) in zip(names, found.items(), strict=True):
        expected = reference[f"{name}/{reduction}"]
        assert values.shape == expected.shape
        difference = np.abs(values - expected).max() / expected.max()
        assert difference <= 1e-4, f"{layer}: {difference}"
        assert found.patches[layer] == reference[f"{name}/patches"]


@pytest.mark.shared
@pytest.mark.parametrize("kept", ["0.5", "0.2", "0.1"])
def test_the_allocation_is_no_worse_than_the_authors(reference, resnet20, kept):
    """Theirs is rounded up, so its sum overshoots; ours is given the same sum."""
    model, found = resnet20
    names = layer_names(reference)
    theirs = [reference[f"{name}/m@{kept}"] for name in names]
    total = int(sum(m.sum() for m in theirs))
    ours = allocate(model, found["max"], keep=total)
    assert sum(int(m.sum()) for m in ours.values()) == total
    difficulty, priority = [], []
    for name, (layer, counts) in zip(names, ours.items(), strict=True):
        sums = reference[f"{name}/sum_sens"]
        assert counts.shape == sums.shape
        assert np.all(counts <= capacities(model, layer, found["max"][layer]))
        difficulty.append(log_factor(int(reference[f"{name}/patches"])) * sums.ravel())
        priority.append(np.full(sums.size, 1 / sums.shape[1]))
    difficulty, priority = np.concatenate(difficulty), np.concatenate(priority)
    halves = Halves(difficulty, priority, np.full(len(priority), 1 << 30))
    mine, reached = (
        objective(halves, np.concatenate([np.asarray(m).ravel() for m in counts]))
        for counts in (ours.values(), theirs)
    )
    assert np.isfinite(mine)
    assert mine <= reached


def capacities(path, layer_name, sensitivity):
    """Weights of each neuron half with a positive sensitivity, ``[2, out]``."""
    model = Model.load(path)
    (layer,) = (layer for layer in find_layers(lower(model)).layers if layer.name == layer_name)
    weight, values = (layer.view.to_matrix(v) for v in (model.read(layer.weight), sensitivity))
    return half_counts(values > 0, weight).reshape(2, -1)
