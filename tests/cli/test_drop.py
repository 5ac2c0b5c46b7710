"""`--fail-if-drop` and `--masks`."""

import numpy as np
import pytest

COUNT = """
import onnx
from onnx import numpy_helper

def kept(path):
    stored = onnx.load(path).graph.initializer
    return sum(int((numpy_helper.to_array(t) != 0).sum()) for t in stored)
"""


@pytest.mark.parametrize(("drop", "code"), [(30, 0), (10, 3)])
def test_a_pipeline_stops_where_the_metric_falls_too_far(run, folder, drop, code):
    (folder / "judge.py").write_text(COUNT)
    result = run(
        "in.onnx", "out.onnx", "--calib", "data.npz", "--sparsity", "0.5", "--no-new-biases",
        "--fail-if-drop", drop, "--eval-script", "judge.py:kept", "--json", "r.json",
    )  # fmt: skip
    assert result.code == code, result
    assert "judge.py:kept" in result.err
    assert ("more than 10" in result.err) == (code == 3)
    assert (folder / "out.onnx").exists()
    assert (folder / "r.json").exists()


def test_it_needs_a_metric(refused):
    refused(2, "goes with --eval-script", "in.onnx", "out.onnx", "--calib", "data.npz",
            "--fail-if-drop", "0.1")  # fmt: skip


def test_masks(run, folder):
    assert run("in.onnx", "out.onnx", "--calib", "data.npz", "--masks", "kept.npz").code == 0
    kept = np.load(folder / "kept.npz")
    assert sum(int((~kept[name]).sum()) for name in kept.files) == 28


def test_masks_overwrite_no_input(refused):
    refused(2, "overwrite an input", "in.onnx", "out.onnx", "--calib", "data.npz",
            "--masks", "data.npz")  # fmt: skip


def test_there_are_no_masks_of_channels(refused):
    refused(2, "no masks to write", "in.onnx", "out.onnx", "--calib", "data.npz",
            "--pattern", "channels", "--masks", "kept.npz")  # fmt: skip
