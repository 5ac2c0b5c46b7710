"""`onnx-sipp inspect IN`."""

import json

import onnx
import pytest
from small_models import make_model, mlp, save_external, weights


def test_inspect(run, folder):
    result = run("inspect", "in.onnx")
    assert (result.code, result.err) == (0, "")
    for expected in ("first", "w1", "initializer", "4×8", "1 × 8 × 4", "56 of 67 parameters"):
        assert expected in result.out
    assert sorted(path.name for path in folder.iterdir()) == ["data.npz", "in.onnx"]


def test_the_model_is_not_run(run, monkeypatch):
    monkeypatch.setattr("onnxruntime.InferenceSession", None)
    assert run("inspect", "in.onnx").code == 0


def test_what_is_left_alone_has_its_reason(run, folder):
    nodes = [("MatMul", "x w", "h", {"name": "a[0]"}), ("Add", "h w", "y", {"name": "add"})]
    onnx.save(make_model(nodes, {"w": weights(4, 4)}), folder / "in.onnx")
    result = run("inspect", "in.onnx")
    assert result.code == 0
    assert "a[0]" in result.out
    assert "its weight 'w' is also read by Add 'add'" in result.out
    assert "0 of 16 parameters (0.0%) in 0 layers" in result.out


def test_json(run, folder):
    assert run("inspect", "in.onnx", "--json", "found.json").code == 0
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    assert (found["prunable"], found["parameters"]) == (56, 67)
    first = found["layers"][0]
    assert (first["name"], first["route"], first["shape"]) == ("first", "initializer", [4, 8])
    assert found["skipped"] == []


def test_exclusions(run):
    result = run("inspect", "in.onnx", "--exclude-nodes", "fir*")
    assert "excluded by the user" in result.out
    assert "24 of 67" in result.out


def test_long_names_are_not_cut(run, folder, monkeypatch):
    name = "/encoder/layer.0/" + "attention/" * 20 + "MatMul"
    onnx.save(make_model([("MatMul", "x w", "y", {"name": name})], {"w": weights(4, 4)}), "in.onnx")
    result = run("inspect", "in.onnx")
    first = [line.split("│")[1].strip() for line in result.out.splitlines() if "│" in line]
    assert "".join(first) == name


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (2, "there is no file 'nope.onnx'", ["nope.onnx"]),
        (1, "is no ONNX model", ["data.npz"]),
        (2, "did you mean 'first'?", ["in.onnx", "--exclude-nodes", "fist"]),
        (2, "the folder 'missing' does not exist", ["in.onnx", "--json", "missing/found.json"]),
        (2, "would overwrite an input", ["in.onnx", "--json", "in.onnx"]),
        (2, "would overwrite an input", ["big.onnx", "--json", "weights.bin"]),
    ],
)
def test_refused(refused, folder, code, message, arguments):
    save_external(mlp(), folder / "big.onnx")
    refused(code, message, "inspect", *arguments)
