"""Calibration data that is damaged, lies about its size, or would run code."""

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from hostile.case import Case, model, write

NPZ = ("m.onnx", "o.onnx", "--method", "magnitude", "--calib", "d.npz")
NPY = (*NPZ[:-1], "d.npy")
BESIDE = NPZ[:-2]
COMPARE = ("compare", "m.onnx", "m.onnx", "--data", "d.npz", "--seconds", "0")


class Touch:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str, int], int], tuple[str, int]]:
        return os.open, ("unpickled", os.O_CREAT)


def _header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    return b"\x93NUMPY\x01\x00" + _sized(text)


def _sized(text: str) -> bytes:
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return struct.pack("<H", len(text)) + text.encode("latin1")


def _npy(content: bytes, folder: Path) -> None:
    write(model(), folder)
    (folder / "d.npz").unlink()
    (folder / "d.npy").write_bytes(content)


def _holes(folder: Path) -> None:
    rows = 1 << 36
    head = _header((rows, 4))
    _npy(head, folder)
    with (folder / "d.npy").open("ab") as out:
        out.truncate(len(head) + 16 * rows)


def _bomb(folder: Path) -> None:
    """Four GiB of zeros in four MiB."""
    write(model(), folder)
    _zipped(folder, "x.npy", _header((1 << 28, 4)), 256)


def _wide_bomb(folder: Path) -> None:
    """The same as one sample, for a model that leaves its sizes open."""
    nodes = [
        helper.make_node("ReduceSum", ["z"], ["s"]),
        helper.make_node("Add", ["h", "s"], ["y"]),
    ]
    proto = model(nodes)
    proto.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", "w"]))
    write(proto, folder)
    _zipped(folder, "z.npy", _header((1, 1 << 30)), 256)
    with zipfile.ZipFile(folder / "d.npz", "a") as archive:
        archive.writestr("x.npy", _header((1, 4)) + bytes(16))


def _zipped(folder: Path, member: str, head: bytes, pieces: int) -> None:
    with (
        zipfile.ZipFile(folder / "d.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open(member, "w", force_zip64=True) as out,
    ):
        out.write(head)
        for _ in range(pieces):
            out.write(bytes(1 << 24))


def _npz(arrays: dict[str, bytes], folder: Path) -> None:
    write(model(), folder)
    with zipfile.ZipFile(folder / "d.npz", "w") as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)


def _objects() -> bytes:
    return _header((1,), "|O") + pickle.dumps(Touch())


def _half(folder: Path) -> None:
    write(model(), folder)
    content = (folder / "d.npz").read_bytes()
    (folder / "d.npz").write_bytes(content[: len(content) // 2])


def _bad_sum(folder: Path) -> None:
    write(model(), folder)
    content = bytearray((folder / "d.npz").read_bytes())
    content[200] ^= 255
    (folder / "d.npz").write_bytes(content)


def _random(folder: Path) -> None:
    write(model(), folder)
    (folder / "d.npz").write_bytes(b"PK\x03\x04" + np.random.default_rng(3).bytes(10_000))


def _many(folder: Path) -> None:
    write(model(), folder)
    with zipfile.ZipFile(folder / "d.npz", "w") as archive:
        for index in range(50_000):
            archive.writestr(f"{index}.npy", b"")


def _test_data(content: bytes, folder: Path) -> Path:
    write(model(), folder)
    place = folder / "test_data_set_0" / "input_0.pb"
    place.parent.mkdir()
    place.write_bytes(content)
    return place


def _claims(folder: Path) -> None:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1 << 40, 4], raw_data=bytes(16))
    _test_data(tensor.SerializeToString(), folder)


def _elsewhere(folder: Path) -> None:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1, 4], data_location=1)
    tensor.external_data.add(key="location", value="../secret")
    _test_data(tensor.SerializeToString(), folder)


def _texts(folder: Path) -> None:
    tensor = helper.make_tensor("x", TensorProto.STRING, [1, 4], [b"a"] * 4)
    _test_data(tensor.SerializeToString(), folder)


def _truncated(folder: Path) -> None:
    tensor = numpy_helper.from_array(np.ones((1, 4), np.float32), "x").SerializeToString()
    _test_data(tensor[:-3], folder)


def _zeros(folder: Path) -> None:
    place = _test_data(b"", folder)
    place.unlink()
    place.symlink_to("/dev/zero")


def _pipe(folder: Path) -> None:
    place = _test_data(b"", folder)
    place.unlink()
    os.mkfifo(place)


def _npz_pipe(folder: Path) -> None:
    write(model(), folder)
    (folder / "d.npz").unlink()
    os.mkfifo(folder / "d.npz")


def _not_unpickled(folder: Path, out: str, err: str) -> str:
    del out, err
    return "a pickle was loaded" if (folder / "unpickled").exists() else ""


def _bad(name: str, arrays: dict[str, bytes]) -> Case:
    return Case(f"npz: {name}", partial(_npz, arrays), (NPZ,), check=_not_unpickled)


def _bad_npy(name: str, content: bytes) -> Case:
    return Case(f"npy: {name}", partial(_npy, content), (NPY,), check=_not_unpickled)


_FORTY = bytes(640)
CASES = [
    Case("npz: 4 GiB of zeros in 4 MiB", _bomb, (NPZ, COMPARE)),
    Case("npz: the same as one sample", _wide_bomb, (NPZ,)),
    _bad("pickled objects", {"x": _objects()}),
    Case("npz: half of a file", _half, (NPZ,)),
    Case("npz: damaged bytes", _bad_sum, (NPZ,)),
    Case("npz: random bytes", _random, (NPZ,)),
    Case("npz: 50,000 arrays that nobody wants", _many, (NPZ,)),
    Case("npz: a named pipe", _npz_pipe, (NPZ,)),
    _bad("a header that claims more than there is", {"x": _header((1 << 40, 4)) + _FORTY}),
    _bad("a header that claims less", {"x": _header((2, 4)) + _FORTY}),
    _bad("a header with negative sizes", {"x": _header((-40, -4)) + _FORTY}),
    _bad("a header whose sizes overflow", {"x": _header((1 << 62, 1 << 62)) + _FORTY}),
    _bad("elements of no size", {"x": _header((1 << 40, 4), "|V0")}),
    _bad("texts of a gibibyte each", {"x": _header((1, 4), "<U268435456")}),
    _bad_npy("pickled objects", _objects()),
    _bad_npy("a header of 60,000 brackets", b"\x93NUMPY\x01\x00" + _sized("(" * 60_000)),
    _bad_npy("a header that is code",
             b"\x93NUMPY\x01\x00" + _sized("__import__('os').mkdir('unpickled')")),
    _bad_npy("half of a header", _header((40, 4))[:30]),
    _bad_npy("no elements behind the header", _header((40, 4))),
    _bad_npy("an empty file", b""),
    Case("npy: a tebibyte of holes", _holes, (NPY,), refused=False),
    Case("test data: claims 16 TiB", _claims, (BESIDE,)),
    Case("test data: elements in `../secret`", _elsewhere, (BESIDE,)),
    Case("test data: texts", _texts, (BESIDE,)),
    Case("test data: truncated", _truncated, (BESIDE,)),
    Case("test data: a link to `/dev/zero`", _zeros, (BESIDE,)),
    Case("test data: a named pipe", _pipe, (BESIDE,)),
]  # fmt: skip
