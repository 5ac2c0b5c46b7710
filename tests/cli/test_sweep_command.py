"""`onnx-sipp sweep IN`, and goals instead of a sparsity."""

import csv
import json

import pytest

COUNT = """
import onnx
from onnx import numpy_helper

def kept(path):
    stored = onnx.load(path).graph.initializer
    return sum(int((numpy_helper.to_array(t) != 0).sum()) for t in stored)
"""


def test_sweep(run, folder):
    before = sorted(path.name for path in folder.iterdir())
    result = run("sweep", "in.onnx", "--calib", "data.npz", "--sparsities", "0.5,0.25")
    assert result.code == 0, result
    assert "25.00%" in result.out
    assert result.err == ""
    assert sorted(path.name for path in folder.iterdir()) == before


def test_sweep_writes_what_it_shows(run, folder):
    result = run(
        "sweep", "in.onnx", "--calib", "data.npz", "--sparsities", "0.25,0.5",
        "--csv", "c.csv", "--json", "c.json", "--html", "c.html",
    )  # fmt: skip
    assert result.code == 0, result
    rows = list(csv.DictReader((folder / "c.csv").open()))
    points = json.loads((folder / "c.json").read_text())["points"]
    assert [int(row["zeros"]) for row in rows] == [point["zeros"] for point in points] == [14, 28]
    assert "<svg" in (folder / "c.html").read_text()


def test_sweep_to_standard_output_is_json_alone(run):
    result = run("sweep", "in.onnx", "--calib", "data.npz", "--per-layer", "--json", "-")
    assert [layer["name"] for layer in json.loads(result.out)["layers"]] == ["first", "second"]


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (2, "no list of shares", ["--sparsities", "half"]),
        (2, "below 1", ["--sparsities", "1.5"]),
        (2, "overwrite an input", ["--csv", "data.npz"]),
    ],
)
def test_sweep_refuses(run, folder, code, message, arguments):
    result = run("sweep", "in.onnx", "--calib", "data.npz", *arguments)
    assert result.code == code
    assert message in result.err


def test_a_goal(run, folder):
    (folder / "judge.py").write_text(COUNT)
    result = run(
        "in.onnx", "out.onnx", "--calib", "data.npz", "--json", "r.json",
        "--max-drop", "20", "--eval-script", "judge.py:kept",
    )  # fmt: skip
    assert result.code == 0, result
    assert "taken" in result.out
    report = json.loads((folder / "r.json").read_text())
    assert report["search"]["metric_name"] == "judge.py:kept"
    assert 15 <= report["zeros"] <= 20


def test_a_goal_out_of_reach_writes_nothing(refused):
    refused(1, "no sparsity was found with relative error at most 1e-12",
            "in.onnx", "out.onnx", "--calib", "data.npz", "--max-error", "1e-12")  # fmt: skip


def test_two_goals_that_fix_each_other(refused):
    refused(2, "either max_error or sparsity", "in.onnx", "out.onnx", "--calib", "data.npz",
            "--max-error", "0.1", "--sparsity", "0.5")  # fmt: skip
