"""Weights and their statistics; one tensor may serve several layers."""

import numpy as np
import pytest
from parted_weights import parted
from small_models import make_model, tied, weights

from onnx_sipp.analysis import sensitivities
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.pipeline import prune
from onnx_sipp.weight_groups import group_weights

W = weights(4, 6, seed=3)
DATA = np.random.default_rng(0).standard_normal((60, 4), np.float32)


def twice():
    """One tensor that two layers multiply in the same way."""
    nodes = [
        ("MatMul", "x v", "h", {"name": "first"}),
        ("Tanh", "h", "t"),
        ("MatMul", "t v", "y", {"name": "second"}),
    ]
    return make_model(nodes, {"v": weights(4, 4, seed=4)})


def alone(weight, data, reduction):
    """Sensitivities of a layer that has a weight ``[fan_in, out]`` for itself."""
    model = make_model([("MatMul", "x w", "y")], {"w": weight}, {"x": ["n", len(weight)]})
    (values,) = sensitivities(model, data, reduction=reduction).values()
    return values


@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_sensitivities_of_a_shared_weight_are_the_largest(reduction):
    found = sensitivities(tied(W), DATA, reduction=reduction)
    hidden = np.maximum(DATA @ W, 0)
    expected = np.maximum(alone(W, DATA, reduction), alone(W.T, hidden, reduction).T)
    for name in ("encode", "decode"):
        np.testing.assert_allclose(found[name], expected, rtol=1e-4)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sipp-det", "sipp-hybrid", "random"])
@pytest.mark.parametrize("model", [tied(W), twice()], ids=["turned round", "the same way"])
def test_a_shared_weight_gets_one_mask(model, method):
    result = prune(model, DATA, sparsity=0.5, method=method)
    first, second = result.masks.values()
    np.testing.assert_array_equal(first, second)
    (initializer,) = result.model.graph.initializer
    values = np.frombuffer(initializer.raw_data, np.float32)
    assert np.count_nonzero(values == 0) == values.size // 2
    report = result.report
    assert report.prunable == values.size
    assert report.zeros == values.size // 2
    assert [row.shares_weight_with for row in report.layers] == ["", report.layers[0].name]


def test_wanda_sums_the_moments_of_all_users():
    result = prune(tied(W), DATA, sparsity=0.5, method="wanda", allocation="global", num_samples=60)
    kept = result.masks["encode"]
    seen = np.delete(DATA, held_out(60), axis=0)
    hidden = np.maximum(seen @ W, 0)
    moments = (seen**2).mean(axis=0)[:, None] + (hidden**2).mean(axis=0)[None, :]
    scores = np.abs(W) * np.sqrt(moments)
    np.testing.assert_array_equal(kept, scores >= np.sort(scores.ravel())[12])


def held_out(count):
    from onnx_sipp.calibration.sources import held_out_mask

    return np.flatnonzero(held_out_mask(count))


def test_each_user_of_a_weight_has_its_own_certificate():
    """The bound of the layer that sees the tensor turned round is about its own neurons."""
    result = prune(tied(W), DATA, sparsity=0.5, method="magnitude", num_samples=60)
    seen = np.delete(DATA, held_out(60), axis=0)
    largest = sensitivities(tied(W), seen)["encode"]
    dropped = np.where(result.masks["encode"], 0, largest)
    for row, axis in zip(result.report.layers, (0, 1), strict=True):
        halves = [3 * (dropped * half).sum(axis=axis) for half in (W > 0, W < 0)]
        assert row.epsilon_worst == pytest.approx(np.max(halves), rel=1e-5)


def test_a_weight_sampled_for_one_layer_is_bounded_for_the_other():
    result = prune(tied(W), DATA, sparsity=0.5, method="sipp-rand", delta=0.5)
    encode, decode = result.report.layers
    assert encode.sampled_halves > 0
    assert decode.sampled_halves == 0
    assert np.isfinite(decode.epsilon_worst)


# --- in blocks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("size", [1, 4, 11, 12, 39, 40])
def test_blocks_are_the_weight(transposed, size):
    _, weight = parted(transposed, size)
    blocks = weight.blocks
    assert len(blocks) == (1 if size >= 40 else -(-10 // max(1, size // 4)))
    assert [row for b in blocks for row in range(b.rows.start, b.rows.stop)] == list(range(10))
    np.testing.assert_array_equal(np.concatenate([b.matrix for b in blocks], 1), weight.matrix)
    assert weight.capacity == weight.size == 40


def test_a_jury_is_of_all_blocks(monkeypatch):
    monkeypatch.setattr("onnx_sipp.weights.JURY_SIZE", 4)
    _, weight = parted(True)
    np.testing.assert_array_equal(weight.jury, [0, 3, 6, 9])
    found = weight.of_jury(lambda number: weight.blocks[number].matrix)
    np.testing.assert_array_equal(found, weight.matrix[:, [0, 3, 6, 9]])
    _, whole = parted(True, 40)
    np.testing.assert_array_equal(whole.of_jury(lambda _: whole.matrix), whole.matrix)


def test_what_is_shared_or_in_groups_stays_whole():
    nodes = [("Conv", "x w", "y", {"group": 2})]
    grouped = make_model(nodes, {"w": W[..., None]}, {"x": [1, 12, 5]})
    for proto in (tied(W), twice(), grouped):
        model = lower(Model(proto))
        (weight,) = group_weights(model, find_layers(model).layers, 1)
        (block,) = weight.blocks
        np.testing.assert_array_equal(block.matrix, weight.matrix)
