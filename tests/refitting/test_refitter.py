"""What a refitter holds: activations of some samples, and the outputs of the dense model."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from small_models import make_model, weights

from onnx_sipp import prune
from onnx_sipp.calibration.execution import Execution
from onnx_sipp.checked import checked_options
from onnx_sipp.cluster.hiring import _Idle
from onnx_sipp.preparing import prepare
from onnx_sipp.progress import Silent
from onnx_sipp.refitting import refitter as module
from onnx_sipp.store import TensorStore
from onnx_sipp.threads import borrow_from, borrow_no_more

PROTO = make_model(
    [("MatMul", "x v", "h"), ("Relu", "h", "a"), ("MatMul", "a w", "y")],
    {"v": weights(6, 8), "w": weights(8, 3, seed=1)},
    {"x": ["n", 6]},
)


def opened(samples=80, **options):
    data = weights(samples, 6, seed=5)
    return prepare(PROTO, data, checked_options(options), Silent()).refitter()


class Fails:
    """Decides on nothing."""

    def decide(self, index, evidence):
        raise RuntimeError(index)


@pytest.fixture
def stores(monkeypatch):
    """What was kept, in which store."""
    kept = {}
    keep = TensorStore.keep

    def keeping(store, value):
        kept.setdefault(store, []).append(value.shape)
        return keep(store, value)

    monkeypatch.setattr(TensorStore, "keep", keeping)
    return kept


@pytest.mark.parametrize(("most", "size", "rows"), [(32, 8, 32), (30, 8, 24), (5, 8, 0), (7, 1, 7)])
def test_some_samples_wait_in_memory(monkeypatch, stores, most, size, rows):
    monkeypatch.setattr(module, "_HELD_SAMPLES", most)
    refitter = opened(batch_size=size)
    stores.clear()
    refitter.survey(lambda *_: None, Silent())
    inputs = [shape[0] for shape in stores.get(refitter._roomy, []) if shape[1:] == (6,)]
    assert sum(inputs) == rows
    assert stores[refitter._execution.store]


def test_what_was_held_is_forgotten():
    refitter = opened()
    held = refitter._roomy, refitter._execution.store
    refitter.survey(lambda *_: None, Silent())
    assert [store._used for store in held] == [0, 0]
    for sequential in (False, True):
        with pytest.raises(RuntimeError):
            refitter.refit(Fails(), Silent(), sequential=sequential)
        assert [store._used for store in held] == [0, 0]
    sums = refitter.sums(Silent())
    next(sums)
    assert held[0]._used > 0
    sums.close()
    assert [store._used for store in held] == [0, 0]


def runs_of(monkeypatch, begun=lambda model: None):
    """How many batches models are run on, each time."""
    counts = []
    outputs = Execution.outputs

    def running(execution, model, feeds):
        counts.append(len(feeds))
        begun(model)
        return outputs(execution, model, feeds)

    monkeypatch.setattr(Execution, "outputs", running)
    return counts


def test_outputs_of_the_dense_model_are_made_once(monkeypatch):
    refitter = opened(batch_size=8)
    counts = runs_of(monkeypatch)
    dense = refitter._staged.dense
    assert refitter.output_error(dense, 16) == 0
    assert sorted(counts) == [2, 2]
    assert refitter.on_some(8).output_error(dense, 24) == 0  # the dense one on a batch more
    assert sorted(counts) == [1, 2, 2, 3]
    assert refitter.output_error(dense, 24) == 0
    assert sorted(counts) == [1, 2, 2, 3, 3]


def test_threads_that_ask_at_the_same_time_get_the_same(monkeypatch):
    refitter = opened(batch_size=8)
    dense, changed = refitter._staged.dense, refitter._staged.pruned(TensorStore(0)).model
    every = Barrier(4)
    runs_of(monkeypatch, lambda model: every.wait(60) if model is dense else None)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(refitter.output_error, changed, 64) for _ in range(4)]
        assert {one.result() for one in asked} == {0.0}
    assert len(refitter._outputs._known) == 8


def test_memory_changes_no_result(monkeypatch):
    found = []
    for most in (0, 256):
        monkeypatch.setattr(module, "_HELD_SAMPLES", most)
        seen = {}
        opened(batch_size=8).survey(
            lambda index, evidence, to=seen: to.update({index: evidence}), Silent()
        )
        found.append(seen)
    for index, evidence in found[0].items():
        np.testing.assert_array_equal(evidence.fit.cross, found[1][index].fit.cross)
        np.testing.assert_array_equal(evidence.fit.gram, found[1][index].fit.gram)


@pytest.mark.parametrize(("threads", "at_once"), [(1, 2), (2, 1)])
def test_both_models_run_at_once_where_a_core_is_borrowed(monkeypatch, threads, at_once):
    """With the same result; but not where onnxruntime has several threads by itself."""
    running, most = [], []
    advance = module.SegmentedRun.advance

    def advancing(run):
        running.append(run)
        time.sleep(0.05)
        most.append(len(running))
        try:
            return advance(run)
        finally:
            running.remove(run)

    plain = prune(PROTO, weights(80, 6, seed=5), sparsity=0.5, threads=threads)
    monkeypatch.setattr(module.SegmentedRun, "advance", advancing)
    borrow_from(_Idle(lambda: 2 * threads))
    try:
        found = prune(PROTO, weights(80, 6, seed=5), sparsity=0.5, threads=threads)
    finally:
        borrow_no_more()
    assert found.model.SerializeToString() == plain.model.SerializeToString()
    assert max(most) == at_once
