"""Files are written whole or not at all, together, and strangers' files are read with care."""

import os
import threading
from pathlib import Path

import pytest

from onnx_sipp import files
from onnx_sipp.errors import SippError
from onnx_sipp.files import read_plain, refuse_full, write_together


def pieces(folder, data=b"data", model=b"model"):
    return [
        (folder / "o.data", lambda out: out.write(data)),
        (folder / "o", lambda out: out.write(model)),
    ]


def test_devices_and_pipes_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        with pytest.raises(SippError, match="no regular file"):
            read_plain(path, 10)


def test_large_files_are_not_read(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_plain(tmp_path / "a", 5) == b"12345"
    with pytest.raises(SippError, match="has 5 bytes, and at most 4"):
        read_plain(tmp_path / "a", 4)


def test_a_disk_without_room(tmp_path):
    refuse_full(tmp_path, 1)
    with pytest.raises(SippError, match="make room"):
        refuse_full(tmp_path, 1 << 60)


def test_an_old_model_is_never_beside_new_data(tmp_path, monkeypatch):
    """Whenever the process ends: after each step, no file refers to another one's data."""
    write_together(pieces(tmp_path, b"old data", b"old model"))
    seen = []
    replace = Path.replace

    def watched(self, target):
        seen.append({path.name: path.read_bytes() for path in tmp_path.glob("o*")})
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    write_together(pieces(tmp_path))
    old = {"o": b"old model", "o.data": b"old data"}
    assert seen == [old, {"o.data": b"old data"}, {}, {"o.data": b"data"}]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "o.data": b"data", "o": b"model",
    }  # fmt: skip


def test_two_writers_do_not_mix(tmp_path, monkeypatch):
    """The second one waits before its first rename until the first one is through."""
    inside, go_on = threading.Event(), threading.Event()
    replace, order = Path.replace, []

    def slow(self, target):
        order.append((threading.current_thread().name, Path(target).name))
        if len(order) == 1:
            inside.set()
            go_on.wait(5)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", slow)
    first = threading.Thread(target=write_together, args=(pieces(tmp_path, b"1", b"1"),), name="1")
    second = threading.Thread(target=write_together, args=(pieces(tmp_path, b"2", b"2"),), name="2")
    first.start()
    inside.wait(5)
    second.start()
    second.join(0.3)
    assert order == [("1", "o.data")]
    go_on.set()
    for one in (first, second):
        one.join(5)
    assert [name for name, _ in order] == ["1", "1", "2", "2", "2", "2"]  # it moves old ones away
    assert (tmp_path / "o").read_bytes() == (tmp_path / "o.data").read_bytes() == b"2"


def test_without_locks_files_are_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    write_together(pieces(tmp_path))
    assert (tmp_path / "o").read_bytes() == b"model"
