"""Tensors in memory up to a limit, beyond it in files."""

import gc

import numpy as np
import pytest

from onnx_sipp import SippError
from onnx_sipp.store import LiveTensors, TensorStore, load

A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(4, dtype=np.int64)


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_within_the_limit_nothing_is_written(tmp_path):
    store = TensorStore(A.nbytes + B.nbytes, tmp_path)
    assert store.keep(A) is A
    assert store.keep(B) is B
    assert list(tmp_path.iterdir()) == []


def test_beyond_the_limit_a_file_is_written(tmp_path):
    store = TensorStore(A.nbytes, tmp_path)
    first, second = store.keep(A), store.keep(B)
    assert first is A
    assert len(files(tmp_path)) == 1
    np.testing.assert_array_equal(load(second), B)
    np.testing.assert_array_equal(load(second), B)  # it stays


def test_room_is_given_back(tmp_path):
    store = TensorStore(A.nbytes, tmp_path)
    store.drop(store.keep(A))
    assert store.keep(A) is A
    kept = store.keep(A)
    store.drop(kept)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "value",
    [
        A,
        A.T,
        A[:, ::2],
        np.float32(3).reshape(()),
        np.zeros((0, 4), np.float32),
        A.astype(np.float16),
        A > 2,
        np.broadcast_to(B, (3, 4)),
    ],
)
def test_files_give_back_the_same(tmp_path, value):
    store = TensorStore(0, tmp_path)
    back = load(store.keep(value))
    assert back.dtype == value.dtype
    assert back.shape == value.shape
    np.testing.assert_array_equal(back, value)


@pytest.mark.parametrize("value", [np.array(["a", "bc"], object), [A, B], None])
def test_what_no_file_can_hold_stays_in_memory(tmp_path, value):
    store = TensorStore(0, tmp_path)
    kept = store.keep(value)
    assert load(kept) is value
    store.drop(kept)
    assert files(tmp_path) == []


def test_the_folder_is_removed(tmp_path):
    store = TensorStore(0, tmp_path)
    store.keep(A)
    assert len(list(tmp_path.iterdir())) == 1
    del store
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path):
    store = TensorStore(0, tmp_path / "gone")
    with pytest.raises(SippError, match="cannot keep intermediate data in .*gone.*--workdir"):
        store.keep(A)


def test_a_file_that_cannot_be_written(tmp_path):
    store = TensorStore(0, tmp_path)
    store.keep(A)
    for folder in tmp_path.iterdir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    with pytest.raises(SippError, match="cannot keep intermediate data"):
        store.keep(A)


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_live_tensors(tmp_path, limit):
    live = LiveTensors(TensorStore(limit, tmp_path))
    live.add("a", A)
    live.add("b", B)
    assert list(live) == ["a", "b"]
    assert len(live) == 2
    np.testing.assert_array_equal(live["a"], A)
    live.remove("a")
    live.remove("a")
    assert "a" not in live
    assert len(files(tmp_path)) == (1 if limit == 0 else 0)
    with pytest.raises(KeyError):
        live["a"]
