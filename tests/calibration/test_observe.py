"""Streaming the inputs of layers past accumulators."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from small_models import make_model, mlp, weights

from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.observe import Observation, Watch, observe
from onnx_sipp.calibration.samples import open_samples
from onnx_sipp.checked import checked_options
from onnx_sipp.errors import SippError
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.memory import Plan
from onnx_sipp.preparing import prepare
from onnx_sipp.progress import Silent
from onnx_sipp.store import TensorStore


class Recorder:
    """Keeps all patches."""

    def __init__(self):
        self.columns, self.samples = [], 0

    def update(self, patches):
        self.columns.append(patches.columns.copy())
        self.samples += patches.samples * patches.complete


class Counter(Silent):
    """Listens to the progress."""

    def __init__(self):
        self.done, self.totals = 0, set()

    def advance(self, amount, total):
        self.done += amount
        self.totals.add(total)


def record(proto, data, *, batch_size=None, threads=2, progress=None, limit=1 << 20):
    model = Model(proto)
    layers = find_layers(lower(model)).layers
    samples = open_samples(
        model, data, num_samples=None, seed=0, input_shapes={}, providers=None, hold_out=False
    )
    found = {}

    def watch(layer):
        def end(recorders):
            (found[layer.name],) = recorders

        return Watch(layer, 1, lambda: [Recorder()], end)

    memory = Plan(sums=limit)
    execution = Execution(samples.inputs, TensorStore(0), batch_size=batch_size, memory=memory)
    observation = Observation(execution, model, samples.calibration, threads, progress or Silent())
    observe(observation, [watch(layer) for layer in layers])
    return found


DATA = np.random.default_rng(0).standard_normal((50, 4), np.float32)


@pytest.mark.parametrize("batch_size", [None, 1, 7, 32])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_every_layer_sees_every_patch_in_order(batch_size, threads, limit):
    """In one pass, or with one layer after the other."""
    found = record(mlp(), DATA, batch_size=batch_size, threads=threads, limit=limit)
    model = Model(mlp())
    hidden = np.maximum(DATA @ model.read("w1") + model.read("b1"), 0)
    for name, expected in (("first", DATA), ("second", hidden)):
        columns = np.concatenate(found[name].columns, axis=2)
        np.testing.assert_allclose(columns[0].T, expected, rtol=1e-5, atol=1e-6)
        assert found[name].samples == 50


def test_layers_of_one_activation():
    """Two layers that multiply one tensor, one of them seeing it in another way."""
    nodes = [
        ("MatMul", "x a", "p", {"name": "right"}),
        ("MatMul", "x b", "q", {"name": "also right"}),
        ("MatMul", "c x", "r", {"name": "left"}),
    ]
    model = make_model(
        nodes,
        {"a": weights(4, 3), "b": weights(4, 5), "c": weights(2, 6)},
        {"x": ["n", 6, 4]},
        ["p", "q", "r"],
    )
    data = np.random.default_rng(1).standard_normal((9, 6, 4), np.float32)
    found = record(model, data)
    rows = data.reshape(-1, 4).T
    for name in ("right", "also right"):
        np.testing.assert_array_equal(np.concatenate(found[name].columns, axis=2)[0], rows)
    columns = data.transpose(1, 0, 2).reshape(6, -1)
    np.testing.assert_array_equal(np.concatenate(found["left"].columns, axis=2)[0], columns)


def test_progress():
    counter = Counter()
    record(mlp(), DATA, batch_size=7, progress=counter)
    assert counter.done == 50
    assert counter.totals == {50}


@pytest.mark.parametrize("batch_size", [1, 16])
def test_an_activation_that_overflows(batch_size):
    nodes = [("Exp", "x", "e"), ("MatMul", "e w", "y", {"name": "layer"})]
    model = make_model(nodes, {"w": weights(4, 3)})
    data = DATA.copy()
    data[33, 2] = 1000
    with pytest.raises(SippError, match=r"'e' of layer 'layer' is not finite"):
        record(model, data, batch_size=batch_size)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (9, 1, 1), (1, 9, 0), (0, 0, 0)])
def test_wide_layers_and_others_see_all(threads, sizes):
    """However many threads there are, and however their accumulators are parted among them."""
    proto = make_model(
        [("MatMul", "x a", "h"), ("MatMul", "h b", "g"), ("MatMul", "g c", "y")],
        {n: weights(4, 4, seed=i) for i, n in enumerate("abc")},
        {"x": ["n", 4]},
    )
    found = prepare(proto, weights(30, 4), checked_options({"threads": threads}), Silent())
    how = replace(found.observation(found.samples.calibration), threads=threads)
    seen = {}

    class Counts:
        def __init__(self, name, part):
            self.key = name, part
            seen[self.key] = 0

        def update(self, patches):
            seen[self.key] += patches.samples

    watches = [
        Watch(w.layers[0], size, partial(_two, Counts, w.layers[0].name), lambda _: None)
        for w, size in zip(found.weights, sizes, strict=True)
    ]
    observe(how, watches)
    assert len(seen) == 6
    assert set(seen.values()) == {len(found.samples.calibration)}


def _two(kind, name):
    return [kind(name, 0), kind(name, 1)]
