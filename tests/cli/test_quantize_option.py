"""`--quantize`, alone and with patterns, channels and packed storage."""

import json
import logging

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from small_models import make_model, weights

from onnx_sipp.graph.walk import all_nodes

OPTIONS = ["--method", "magnitude", "--num-samples", "20"]


@pytest.fixture
def wide(folder):
    """A model that is worth packing, and its data."""
    model = make_model(
        [
            ("MatMul", "x w1", "h1"),
            ("Relu", "h1", "r1"),
            ("Gemm", "r1 w2 b2", "h2"),
            ("Relu", "h2", "r2"),
            ("MatMul", "r2 w3", "y"),
        ],
        {
            "w1": weights(64, 128), "w2": weights(128, 128, seed=1), "b2": weights(128),
            "w3": weights(128, 64, seed=2),
        },
        {"x": ["n", 64]},
        {"y": ["n", 64]},
    )  # fmt: skip
    onnx.save(model, folder / "in.onnx")
    samples = np.random.default_rng(1).standard_normal((20, 64), np.float32)
    np.savez(folder / "data.npz", x=samples)
    return samples


@pytest.mark.parametrize("kind", ["int8", "int8-dynamic"])
def test_quantised_and_packed(run, folder, wide, kind):
    arguments = [*OPTIONS, "--calib", "data.npz", "--sparsity", "0.9", "--quantize", kind]
    plain = run("in.onnx", "plain.onnx", *arguments)
    small = run(
        "in.onnx",
        "small.onnx",
        *arguments,
        "--storage",
        "packed",
        "--json",
        "r.json",
        "--report",
        "r.md",
    )
    assert (plain.code, small.code) == (0, 0), small.err
    assert f"Quantised 3 weights ({kind})" in small.out
    assert "after quantising" in small.out
    assert "What integers buy" in small.out
    page = (folder / "r.md").read_text(encoding="utf-8")
    assert "Quantised 3 weights" in page
    assert "Packed 3 tensors" in page
    report = json.loads((folder / "r.json").read_text(encoding="utf-8"))
    found = report["quantization"]
    assert found["kind"] == report["options"]["quantize"] == kind
    assert found["zeros"] >= found["zeros_before"] == report["zeros"]
    assert 0 < found["relative_errors"]["y"] < 0.05
    assert found["outputs_pruned"][0]["relative_error"] > 0
    assert report["outputs"][0]["relative_error"] > 0
    assert report["bytes_after"] == (folder / "small.onnx").stat().st_size
    assert report["bytes_after"] < 0.6 * found["bytes_after"] < 0.18 * found["bytes_before"]
    feed = {"x": wide}
    results = [
        ort.InferenceSession(folder / name).run(None, feed)[0]
        for name in ("plain.onnx", "small.onnx")
    ]
    assert results[0].tobytes() == results[1].tobytes()
    assert run("unpack", "small.onnx", "back.onnx").code == 0
    assert (folder / "back.onnx").read_bytes() == (folder / "plain.onnx").read_bytes()


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "4x1", "1x4"])
@pytest.mark.parametrize("quantised", [False, True])
def test_patterns_are_packed(run, folder, wide, pattern, quantised):
    arguments = ["--calib", "data.npz", "--pattern", pattern, *OPTIONS]
    arguments += [] if ":" in pattern else ["--sparsity", "0.75"]
    arguments += ["--quantize", "int8"] if quantised else []
    assert run("in.onnx", "plain.onnx", *arguments).code == 0
    result = run("in.onnx", "small.onnx", *arguments, "--storage", "packed")
    assert result.code == 0, result.err
    assert "Packed" in result.out
    size, plain = ((folder / name).stat().st_size for name in ("small.onnx", "plain.onnx"))
    assert size < (0.8 if pattern == "2:4" else 0.6) * plain
    assert run("unpack", "small.onnx", "back.onnx").code == 0
    assert (folder / "back.onnx").read_bytes() == (folder / "plain.onnx").read_bytes()


def test_channels_leave_nothing_to_pack(run, folder, wide):
    arguments = ["--calib", "data.npz", "--pattern", "channels", "--macs", "0.5"]
    result = run("in.onnx", "small.onnx", *arguments, "--storage", "packed", "--json", "r.json")
    assert result.code == 0, result.err
    assert "Packing pays for no tensor" in result.out
    report = json.loads((folder / "r.json").read_text(encoding="utf-8"))
    assert report["packing"]["packed"] == []
    assert report["bytes_after"] == (folder / "small.onnx").stat().st_size


def test_channels_in_integers(run, folder, wide):
    arguments = ["--calib", "data.npz", "--pattern", "channels", "--macs", "0.5"]
    result = run("in.onnx", "out.onnx", *arguments, "--quantize", "int8")
    assert result.code == 0, result.err
    assert "Quantised 3 weights" in result.out
    nodes = {node.op_type for node in all_nodes(onnx.load(folder / "out.onnx"))}
    assert "DequantizeLinear" in nodes
    assert (folder / "out.onnx").stat().st_size < 0.2 * (folder / "in.onnx").stat().st_size


def test_channels_with_values_of_one_byte(run, folder, wide):
    """Packing may pay without zeros, if elements are stored in fewer bits."""
    arguments = ["--calib", "data.npz", "--pattern", "channels", "--macs", "0.5"]
    packed = ["--storage", "packed", "--pack-values", "int8"]
    assert run("in.onnx", "plain.onnx", *arguments).code == 0
    assert run("in.onnx", "small.onnx", *arguments, *packed).code == 0
    sizes = [(folder / name).stat().st_size for name in ("small.onnx", "plain.onnx")]
    assert sizes[0] < 0.4 * sizes[1]


def test_refused(run, refused, wide):
    again = ["int.onnx", "out.onnx", "--calib", "data.npz", "--quantize", "int8", *OPTIONS]
    start = ["in.onnx", "int.onnx", "--calib", "data.npz", "--quantize", "int8", *OPTIONS]
    assert run(*start).code == 0
    refused(2, "is quantised already", *again)
    result = run("in.onnx", "out.onnx", "--calib", "data.npz", "--quantize", "int4")
    assert (result.code, "'int4' is not one of" in result.err) == (2, True)


@pytest.mark.parametrize("kind", ["int8", "int8-dynamic"])
def test_quiet(run, wide, monkeypatch, kind):
    """Onnxruntime's quantiser logs by the root logger, which would then print all."""
    monkeypatch.setattr(logging.root, "handlers", [])  # as without a test runner
    result = run("in.onnx", "q.onnx", "--calib", "data.npz", "--quantize", kind, "-q", *OPTIONS)
    assert result == (0, "", "")


def test_the_library_checks_the_kind(wide, folder):
    import onnx_sipp

    with pytest.raises(onnx_sipp.UsageError, match="one of int8, int8-dynamic"):
        onnx_sipp.prune("in.onnx", "data.npz", quantize="int4")
