"""`onnx-sipp pack`, `onnx-sipp unpack`, and `--storage packed`."""

import json

import onnx
import pytest
from sparse_models import three_layers


@pytest.fixture
def sparse_file(folder):
    onnx.save(three_layers(0.9), folder / "sparse.onnx")
    return folder / "sparse.onnx"


def test_there_and_back(run, folder, sparse_file):
    packed = run("pack", "sparse.onnx", "small.onnx", "--json", "packed.json")
    assert (packed.code, packed.err) == (0, "")
    assert "every tensor is rebuilt to the bit" in packed.out
    report = json.loads((folder / "packed.json").read_text(encoding="utf-8"))
    assert report["bytes_after"] == (folder / "small.onnx").stat().st_size
    assert report["ratio"] < 0.35
    assert report["worst_error"] == 0
    back = run("unpack", "small.onnx", "back.onnx")
    assert (back.code, back.err) == (0, "")
    assert "Unpacked 3 tensors" in back.out
    assert (folder / "back.onnx").read_bytes() == sparse_file.read_bytes()


def test_a_loss_is_told(run, sparse_file):
    result = run("pack", "sparse.onnx", "small.onnx", "--pack-values", "int8")
    assert "the largest relative error of a tensor is 0.00" in result.out


def test_nothing_to_pack(run, folder):
    result = run("pack", "in.onnx", "small.onnx")
    assert result.code == 0
    assert "Packing pays for no tensor" in result.out
    assert onnx.load(folder / "small.onnx") == onnx.load(folder / "in.onnx")


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (2, "there is no file 'nope.onnx'", ["pack", "nope.onnx", "out.onnx"]),
        (2, "would overwrite the input", ["pack", "in.onnx", "in.onnx"]),
        (2, "would overwrite an input", ["pack", "in.onnx", "out.onnx", "--json", "in.onnx"]),
        (2, "the folder 'no' does not exist", ["unpack", "in.onnx", "no/out.onnx"]),
        (1, "no record of what was packed", ["unpack", "in.onnx", "out.onnx"]),
        (1, "is no ONNX model", ["unpack", "data.npz", "out.onnx"]),
    ],
)
def test_refused(refused, code, message, arguments):
    refused(code, message, *arguments)


def test_packed_twice(run, refused, sparse_file):
    run("pack", "sparse.onnx", "small.onnx")
    refused(2, "is packed already", "pack", "small.onnx", "smaller.onnx")


def test_pruned_and_packed(run, folder, sparse_file):
    """Packed is the same model as dense, in a smaller file."""
    options = ["--sparsity", "0.95", "--method", "magnitude", "--num-samples", "4"]
    assert run("sparse.onnx", "dense.onnx", *options).code == 0
    result = run(
        "sparse.onnx", "small.onnx", *options, "--storage", "packed", "--json", "report.json"
    )
    assert result.code == 0
    assert "Packed 3 tensors" in result.out
    assert "the file is smaller" in result.out
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["options"]["storage"] == "packed"
    assert report["bytes_after"] == (folder / "small.onnx").stat().st_size
    assert report["packing"]["bytes_after"] == report["bytes_after"]
    assert run("unpack", "small.onnx", "back.onnx").code == 0
    assert (folder / "back.onnx").read_bytes() == (folder / "dense.onnx").read_bytes()


def test_values_need_packed_storage(refused):
    message = "goes with the storage 'packed'"
    refused(2, message, "in.onnx", "out.onnx", "--calib", "data.npz", "--pack-values", "int8")
