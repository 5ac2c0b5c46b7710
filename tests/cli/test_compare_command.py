"""`onnx-sipp compare DENSE PRUNED`."""

import json

import onnx
import pytest
from small_models import mlp

from onnx_sipp.comparing import footprint

FAST = ["--data", "data.npz", "--seconds", "0.05", "--threads", "1", "--batch-sizes", "1,2"]


@pytest.fixture(autouse=True)
def one_load(monkeypatch):
    """Each load is a process that takes a while to start."""
    monkeypatch.setattr(footprint, "_LOADS", 1)


@pytest.fixture
def other(folder):
    """The same model under a name that no page must take for markup."""
    onnx.save(mlp(), folder / "a<b>[red].onnx")
    return "a<b>[red].onnx"


def test_table_json_and_page(run, folder, other):
    result = run("compare", "in.onnx", other, *FAST, "--json", "found.json", "--html", "found.html")
    assert (result.code, result.err) == (0, "")
    for expected in ("relative error", "bytes, zstd", "peak memory", "threads", "100.0%"):
        assert expected in result.out
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    assert found["outputs"][0]["relative_error"] == 0
    assert [row["batch"] for row in found["latency"]] == [1, 2]
    page = (folder / "found.html").read_text(encoding="utf-8")
    assert "a&lt;b&gt;[red].onnx" in page
    assert "<b>" not in page
    assert f"{found['dense']['bytes']:,}" in page


def test_json_to_standard_output(run):
    result = run("compare", "in.onnx", "in.onnx", *FAST, "--json", "-")
    assert json.loads(result.out)["samples"] == 20


def test_metric(run, folder):
    (folder / "judge.py").write_text("def accuracy(session):\n    return 0.25\n")
    result = run("compare", "in.onnx", "in.onnx", *FAST, "--eval-script", "judge.py:accuracy")
    assert "judge.py:accuracy" in result.out
    assert "0.25" in result.out


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (2, "there is no file 'nope.onnx'", ["in.onnx", "nope.onnx"]),
        (2, "would overwrite an input", ["in.onnx", "in.onnx", "--json", "data.npz", *FAST]),
        (2, "would overwrite an input", ["in.onnx", "in.onnx", "--html", "in.onnx"]),
        (2, "seconds must be 0 or more", ["in.onnx", "in.onnx", "--seconds", "-1"]),
        (2, "there is no such script", ["in.onnx", "in.onnx", *FAST, "--eval-script", "no.py"]),
        (1, "is no ONNX model", ["in.onnx", "data.npz"]),
    ],
)
def test_refused(refused, code, message, arguments):
    refused(code, message, "compare", *arguments)


def test_lists_of_numbers(run):
    result = run("compare", "in.onnx", "in.onnx", "--threads", "1,x")
    assert result.code == 2
    assert "'1,x' is no list of numbers" in result.err
