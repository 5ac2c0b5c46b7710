"""Patches are left out where there are far more than needed, the same whatever the batches."""

import numpy as np
import pytest
from small_models import make_model, weights

import onnx_sipp
from onnx_sipp.unfolding import thinning
from onnx_sipp.unfolding.base import MatMulUnfolding
from onnx_sipp.unfolding.conv import ConvUnfolding
from onnx_sipp.unfolding.thinning import Thinning, patches_in

CONV = ConvUnfolding((3,), (1,), (1,), ((1, 1),))
WIDTH, SAMPLES = 50, 12


@pytest.fixture
def strict(monkeypatch):
    """Layers as small as those of tests are thinned to 20 patches per input."""
    monkeypatch.setattr(thinning, "PRODUCTS", 1)
    monkeypatch.setattr(thinning, "PATCHES_PER_INPUT", 20)


def thinned(unfolding, matrix, shapes):
    return Thinning(unfolding, matrix, patches_in(unfolding, matrix, shapes))


def kept(batch_size, unfolding=CONV, limit=8 << 20):
    """Numbers of the patches that are kept; the middle of each patch is its own number."""
    samples = np.arange(SAMPLES * WIDTH, dtype=np.float32).reshape(SAMPLES, 1, WIDTH)
    batches = [samples[i : i + batch_size] for i in range(0, SAMPLES, batch_size)]
    chosen = thinned(unfolding, (1, 2, 3), [batch.shape for batch in batches])
    found = []
    for number, batch in enumerate(batches):
        pairs = unfolding.pairs(batch, [np.concatenate([batch, -batch], 1)], limit)
        for columns, (output,) in chosen.of(number, pairs):
            np.testing.assert_array_equal(output[0, 0], columns[0, 1])
            np.testing.assert_array_equal(output[0, 1], -columns[0, 1])
            found.extend(columns[0, 1].astype(int).tolist())
    return found


def test_small_layers_are_not_thinned():
    assert kept(4) == list(range(SAMPLES * WIDTH))


@pytest.mark.usefixtures("strict")
def test_evenly_over_samples_and_places():
    found = np.array(kept(4))
    assert abs(len(found) - 60) <= 3  # 20 patches for each of 3 inputs
    per_sample = np.bincount(found // WIDTH, minlength=SAMPLES)
    assert per_sample.min() >= 4
    assert per_sample.max() <= 6
    per_place = np.bincount(found % WIDTH // 10, minlength=5)
    assert per_place.min() >= 9
    assert per_place.max() <= 15


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("batch_size", [1, 5, 12])
@pytest.mark.parametrize("limit", [1, 1000])
def test_batches_and_pieces_change_nothing(batch_size, limit):
    assert kept(batch_size, limit=limit) == kept(4)


@pytest.mark.usefixtures("strict")
def test_matrix_products_are_not_thinned():
    rows = np.arange(300, dtype=np.float32).reshape(100, 3)
    chosen = thinned(MatMulUnfolding(), (1, 2, 3), [rows.shape])
    pairs = MatMulUnfolding().pairs(rows, [rows[:, :2]])
    assert sum(columns.shape[2] for columns, _ in chosen.of(0, pairs)) == 100


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 5}, {"threads": 2}])
def test_a_model(options):
    """Pruned with a part of its patches, the same whatever the batches and threads."""
    nodes = [("Conv", "x w b", "h", {"pads": [1] * 4}), ("Relu", "h", "r"), ("Conv", "r v", "y")]
    constants = {"w": weights(4, 2, 3, 3), "b": weights(4), "v": weights(3, 4, 1, 1)}
    proto = make_model(nodes, constants, {"x": ["n", 2, 12, 12]})
    data = weights(20, 2, 12, 12, seed=3)
    first, second = (
        onnx_sipp.prune(proto, data, sparsity=0.5, **{"threads": 1, **chosen})
        for chosen in ({}, options)
    )
    for name, mask in first.masks.items():
        np.testing.assert_array_equal(second.masks[name], mask)
    assert first.report.zeros == first.report.prunable // 2


def test_inputs_whose_matrix_would_be_too_large_have_few_patches(monkeypatch):
    fan_in, unfolding = 60, MatMulUnfolding()
    rows = np.arange(fan_in * 400, dtype=np.float32).reshape(400, fan_in)

    def places(size):
        batches = [rows[i : i + size] for i in range(0, 400, size)]
        chosen = thinned(unfolding, (1, 2, fan_in), [batch.shape for batch in batches])
        pairs = [chosen.of(n, unfolding.pairs(batch, [batch])) for n, batch in enumerate(batches)]
        return np.concatenate([columns[0, 0] / fan_in for batch in pairs for columns, _ in batch])

    monkeypatch.setattr(thinning, "MOST_BYTES", 4 * fan_in * 30)
    for size in (400, 40, 7):
        found = places(size)
        assert 25 <= len(found) <= 35
        assert np.all(np.diff(found) > 0)
        assert found[0] < 30
        assert found[-1] > 370
    monkeypatch.setattr(thinning, "MOST_BYTES", 4 * fan_in * fan_in)
    np.testing.assert_array_equal(places(40), np.arange(400))
