"""Tensors in memory up to a limit, beyond it in files."""

import errno
import gc
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnx_sipp import SippError
from onnx_sipp.slabs import ranges
from onnx_sipp.store import Held, LiveTensors, TensorStore, load

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


# --- files -------------------------------------------------------------------------------------


def test_a_file_goes_with_its_last_reference(tmp_path):
    store = TensorStore(0, tmp_path)
    kept = [store.keep(A), store.keep(B)]
    del store
    assert len(files(tmp_path)) == 2
    np.testing.assert_array_equal(load(kept[1]), B)
    kept.pop()
    gc.collect()
    assert len(files(tmp_path)) == 1
    del kept
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_parts_are_read_and_written(tmp_path):
    store = TensorStore(0, tmp_path)
    file = store.keep(A)
    np.testing.assert_array_equal(file.slab(1, slice(1, 3)), A[:, 1:])
    store.write(file, 1, 1, -A[:, 1:])
    np.testing.assert_array_equal(file.load(), [[0, -1, -2], [3, -4, -5]])
    mapped = file.mapped()
    np.testing.assert_array_equal(mapped, file.load())
    assert not mapped.flags.writeable
    assert file.nbytes == A.nbytes


def test_an_array_that_comes_in_pieces(tmp_path):
    store = TensorStore(1 << 20, tmp_path)
    file = store.file_of([A[:1], A[1:]], A.shape, A.dtype)
    np.testing.assert_array_equal(load(file), A)
    large = np.arange(3 << 20, dtype=np.int32).reshape(3, 1 << 20)
    np.testing.assert_array_equal(load(TensorStore(0, tmp_path).keep(large[:, ::2])), large[:, ::2])


def test_empty_arrays_are_mapped_too(tmp_path):
    empty = np.zeros((0, 3), np.float32)
    assert TensorStore(0, tmp_path).file_of([empty], (0, 3), empty.dtype).mapped().shape == (0, 3)


@pytest.mark.parametrize("act", ["keep", "write"])
def test_a_full_disk(tmp_path, monkeypatch, act):
    store = TensorStore(0, tmp_path)
    file = store.keep(A)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("onnx_sipp.store.as_bytes", full)
    monkeypatch.setattr("onnx_sipp.store.write_slab", full)
    with pytest.raises(SippError, match="No space left on device; name a folder with space"):
        store.keep(B) if act == "keep" else store.write(file, 0, 0, A)
    gc.collect()
    assert files(tmp_path) == [file.path]


@pytest.mark.parametrize(("length", "row_bytes"), [(0, 4), (1, 4), (7, 4), (7, 100), (7, 0)])
def test_ranges(length, row_bytes):
    found = list(ranges(length, row_bytes, limit=12))
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(length))
    assert all((part.stop - part.start) * row_bytes <= max(12, row_bytes) for part in found)


def test_several_threads_may_keep_arrays(tmp_path):
    store = TensorStore(50 * A.nbytes, tmp_path)

    def work(_):
        kept = [store.keep(A) for _ in range(200)]
        assert all(np.array_equal(load(one), A) for one in kept)
        for one in kept:
            store.drop(one)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert sum(store.keep(A) is A for _ in range(60)) == 50


def test_what_is_held_is_made_once_and_never_changed():
    held, made = Held(100), []

    def make():
        made.append(1)
        return np.zeros(10, np.uint8)

    first = held.get(1, "a", make)
    assert held.get(1, "a", make) is first
    assert len(made) == 1
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
    assert held.get(1, "b", make) is not first
    other = held.copy()
    held.forget(1)
    assert held.get(1, "a", make) is not first
    assert other.get(1, "a", make) is first


def test_no_more_is_held_than_there_is_room_for():
    held = Held(100)
    arrays = [held.get(n, "a", lambda: np.zeros(40, np.uint8)) for n in range(3)]
    again = [held.get(n, "a", lambda: np.zeros(40, np.uint8)) for n in range(3)]
    kept = [one is two for one, two in zip(arrays, again, strict=True)]
    assert kept == [True, True, False]
    held.forget(0)
    held.get(2, "a", lambda: np.zeros(40, np.uint8))
    assert held.get(2, "a", list) is held.get(2, "a", list)
