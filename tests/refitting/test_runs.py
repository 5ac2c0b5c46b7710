"""Where the activations of a run wait: those of some samples in memory, others in files."""

import numpy as np
import pytest
from refitters import opened

from onnx_sipp.progress import Silent
from onnx_sipp.refitting import runs as module
from onnx_sipp.store import TensorStore


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
    refitter.survey.run(lambda *_: None, Silent())
    inputs = [shape[0] for shape in stores.get(refitter._roomy, []) if shape[1:] == (6,)]
    assert sum(inputs) == rows
    assert stores[refitter._execution.store]


def test_what_was_held_is_forgotten():
    refitter = opened()
    held = refitter._roomy, refitter._execution.store
    refitter.survey.run(lambda *_: None, Silent())
    assert [store._used for store in held] == [0, 0]
    for sequential in (False, True):
        with pytest.raises(RuntimeError):
            refitter.refit(Fails(), Silent(), sequential=sequential)
        assert [store._used for store in held] == [0, 0]
    sums = refitter.survey.sums(Silent())
    next(sums)
    assert held[0]._used > 0
    sums.close()
    assert [store._used for store in held] == [0, 0]


def test_memory_changes_no_result(monkeypatch):
    found = []
    for most in (0, 256):
        monkeypatch.setattr(module, "_HELD_SAMPLES", most)
        seen = {}
        opened(batch_size=8).survey.run(
            lambda index, evidence, to=seen: to.update({index: evidence}), Silent()
        )
        found.append(seen)
    for index, evidence in found[0].items():
        np.testing.assert_array_equal(evidence.fit.cross, found[1][index].fit.cross)
        np.testing.assert_array_equal(evidence.fit.gram, found[1][index].fit.gram)
