"""Reading .npy and .npz files piece by piece."""

from __future__ import annotations

import io
import os
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnx_sipp.calibration import npy_stream
from onnx_sipp.calibration.npy_stream import open_npy, open_npz
from onnx_sipp.calibration.sources import InputSpec, open_source
from onnx_sipp.errors import SippError

SPEC = InputSpec("x", np.dtype(np.float32), ("N", 3))
ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)

DTYPES = st.sampled_from(["<f4", ">f4", "<f8", "<f2", "|u1", "<i8", ">i4", "|b1", "<u2"])


@settings(max_examples=150, deadline=None)
@given(
    array=DTYPES.flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, max_side=9))
    ),
    kind=st.sampled_from(["npy", "npz", "compressed"]),
    fortran=st.booleans(),
    rows=st.integers(1, 4),
    chunk=st.sampled_from([1, 50, 1 << 20]),
)
def test_streaming_equals_loading(array, kind, fortran, rows, chunk):
    array = np.asfortranarray(array) if fortran else array
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(npy_stream, "_CHUNK_BYTES", chunk)
        path = Path(folder) / "data"
        with path.open("wb") as file:
            if kind == "npy":
                np.save(file, array)
            else:
                save = np.savez if kind == "npz" else np.savez_compressed
                save(file, first=np.zeros(5), x=array)
        stream = open_npy(path) if kind == "npy" else open_npz(path, ["x"])[0]["x"]
        assert (stream.shape, stream.dtype) == (array.shape, array.dtype)
        for _ in range(2):
            blocks = [block.copy() for block in stream.blocks(rows)]
            assert all(len(block) == rows for block in blocks)
            expected = array[: len(array) // rows * rows]
            got = np.concatenate(blocks) if blocks else expected[:0]
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
def test_memory_does_not_hold_the_array(tmp_path, kind):
    array = np.random.default_rng(0).standard_normal((4096, 3, 32, 32), np.float32)  # 48 MiB
    path = tmp_path / ("x.npy" if kind == "npy" else "x.npz")
    if kind == "npy":
        np.save(path, array)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(path, x=array)
    total = float(array.sum(dtype=np.float64))
    nbytes = array.nbytes
    del array
    tracemalloc.start()
    source = open_source(path, [InputSpec("x", np.dtype(np.float32), ("N", 3, 32, 32))])
    streamed = sum(float(feed["x"].sum(dtype=np.float64)) for feed in source)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(source) == 4096
    assert streamed == pytest.approx(total)
    assert peak < nbytes / 10


def written(path: Path, array, **kwargs) -> bytes:
    buffer = io.BytesIO()
    if path.suffix == ".npz":
        np.savez(buffer, x=array)
    else:
        np.save(buffer, array, **kwargs)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[:-40],
        lambda data: b"not such a file at all" * 10,
    ],
)
def test_broken_files_are_told_by_name(tmp_path, name, damage):
    path = tmp_path / name
    path.write_bytes(damage(written(path, ROWS)))
    with pytest.raises(SippError, match=rf"{name}.*(is empty|cannot be read|truncated)"):
        open_source(path, [SPEC])


def test_a_flipped_byte_in_an_archive_is_noticed(tmp_path):
    path = tmp_path / "x.npz"
    data = bytearray(written(path, ROWS))
    data[data.index(ROWS.tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(SippError, match=r"x\.npz.* cannot be read: Bad CRC"):
        open_source(path, [SPEC])


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("shape", [(10**15, 3), (11, 3), (9, 3), (-10, -3)])
def test_a_header_that_lies_about_the_size(tmp_path, name, shape):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    data = header.getvalue() + ROWS.tobytes()
    path = tmp_path / name
    if name == "x.npy":
        path.write_bytes(data)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", data)
    with pytest.raises(SippError, match=r"header announces .* truncated or damaged"):
        open_source(path, [SPEC])


def test_the_same_file_is_told_of_in_the_same_words(tmp_path):
    """Numpy names the object that it found in place of a dict by its address."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10, 3)}
    )
    code = header.getvalue().replace(b"{'descr'", b"f({'descr'").replace(b"}  ", b"}) ")
    (tmp_path / "x.npy").write_bytes(code + ROWS.tobytes())
    with pytest.raises(SippError, match="cannot be read: ") as caught:
        open_source(tmp_path / "x.npy", [SPEC])
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_pickles_are_refused(tmp_path, name):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / name
    path.write_bytes(written(path, np.array([Trap()], object)))
    with pytest.raises(SippError, match="pickled Python objects, which are never loaded"):
        open_source(path, [SPEC])
    assert not (tmp_path / "ran").exists()


def test_pickled_arrays_that_are_not_needed_do_not_matter(tmp_path):
    np.savez(tmp_path / "x.npz", x=ROWS, labels=np.array([{}], object))
    assert len(open_source(tmp_path / "x.npz", [SPEC])) == 10


def test_version_3_is_refused(tmp_path):
    array = np.zeros(2, [("尺寸", "f4")])
    with pytest.warns(UserWarning, match="3.0"):
        np.save(tmp_path / "x.npy", array)
    with pytest.raises(SippError, match=r"version \(3, 0\)"):
        open_source(tmp_path / "x.npy", [SPEC])


def test_version_2_is_read(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, ROWS, version=(2, 0))
    assert len(open_source(tmp_path / "x.npy", [SPEC])) == 10


def test_a_file_that_changes_between_passes(tmp_path):
    np.save(tmp_path / "x.npy", ROWS)
    source = open_source(tmp_path / "x.npy", [SPEC])
    np.save(tmp_path / "x.npy", ROWS[:5])
    with pytest.raises(SippError, match="changed while it was in use"):
        list(source)
    (tmp_path / "x.npy").unlink()
    with pytest.raises(SippError, match=r"x.npy: cannot be read"):
        list(source)


def test_a_file_that_is_cut_between_passes(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, ROWS)
    source = open_source(path, [SPEC])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SippError, match=r"x\.npy: cannot be read: it ends too early"):
        list(source)


def test_encrypted_archive(tmp_path):
    path = tmp_path / "x.npz"
    data = bytearray(written(path, ROWS))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(SippError, match=r"x.npz: cannot be read: .*encrypted"):
        open_source(path, [SPEC])


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(npy_stream, "_HARMLESS_BYTES", 1 << 16)
    ones = np.ones((1 << 16, 3), np.float32)
    np.savez_compressed(tmp_path / "a.npz", x=ones)
    with pytest.raises(SippError, match="unpacks to 786,560 bytes, more than 200 times"):
        open_npz(tmp_path / "a.npz", ["x"])
    np.savez(tmp_path / "b.npz", x=ones)
    assert open_npz(tmp_path / "b.npz", ["x"])[0]["x"].shape == ones.shape


def test_pipes_are_not_waited_for(tmp_path):
    for name, opened in (("a.npy", open_npy), ("a.npz", lambda path: open_npz(path, ["x"]))):
        os.mkfifo(tmp_path / name)
        with pytest.raises(SippError, match="no regular file"):
            opened(tmp_path / name)
