"""What a refitter does: the outputs of the dense model are made once, both models run at once."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from refitters import PROTO, opened
from small_models import weights

from onnx_sipp import prune
from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.segments import SegmentedRun
from onnx_sipp.cluster.hiring import _Idle
from onnx_sipp.store import TensorStore
from onnx_sipp.threads import borrow_from, borrow_no_more


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


@pytest.mark.parametrize(("threads", "at_once"), [(1, 2), (2, 1)])
def test_both_models_run_at_once_where_a_core_is_borrowed(monkeypatch, threads, at_once):
    """With the same result; but not where onnxruntime has several threads by itself."""
    running, most = [], []
    advance = SegmentedRun.advance

    def advancing(run):
        running.append(run)
        time.sleep(0.05)
        most.append(len(running))
        try:
            return advance(run)
        finally:
            running.remove(run)

    plain = prune(PROTO, weights(80, 6, seed=5), sparsity=0.5, threads=threads)
    monkeypatch.setattr(SegmentedRun, "advance", advancing)
    borrow_from(_Idle(lambda: 2 * threads))
    try:
        found = prune(PROTO, weights(80, 6, seed=5), sparsity=0.5, threads=threads)
    finally:
        borrow_no_more()
    assert found.model.SerializeToString() == plain.model.SerializeToString()
    assert max(most) == at_once
