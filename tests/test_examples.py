"""The examples of the docs run as they stand there."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import onnxruntime as ort
import pytest
from click.testing import CliRunner

from onnx_sipp.graph.model import Model

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"


@pytest.fixture
def command():
    return runpy.run_path(str(EXAMPLES / "prune_folder.py"))["main"]


@pytest.fixture
def folder(models, tmp_path):
    source = tmp_path / "model"
    (source / "onnx").mkdir(parents=True)
    (source / "config.json").write_text("{}")
    shutil.copy(models / "lenet300.onnx", source / "onnx" / "model.onnx")
    shutil.copy(models / "lenet300.onnx", source / "onnx" / "model_quantized.onnx")
    return source


def test_a_folder_is_copied_with_its_models_pruned(command, models, folder, tmp_path):
    target, calib = tmp_path / "pruned", str(models / "digits-calib.npz")
    arguments = [str(folder), str(target), "--calib", calib, "--sparsity", "0.6", "--int8"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.output.count("60.0% zeros") == 2
    names = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert names == {"config.json", "onnx/model.onnx", "onnx/model_quantized.onnx"}
    for name in ("model", "model_quantized"):
        ort.InferenceSession(target / "onnx" / f"{name}.onnx", providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in Model.load(target / "onnx" / "model.onnx").proto.graph.node}
    assert "DequantizeLinear" not in kinds


def test_a_folder_without_models_is_refused(command, tmp_path):
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(command, [str(tmp_path / "empty"), str(tmp_path / "new")])
    assert result.exit_code == 2
    assert not (tmp_path / "new").exists()


def test_a_model_that_cannot_be_pruned_is_named(command, folder, tmp_path):
    (folder / "onnx" / "model.onnx").write_bytes(b"no model")
    result = CliRunner().invoke(command, [str(folder), str(tmp_path / "new")])
    assert result.exit_code == 1
    assert "model.onnx" in result.output


def test_the_olive_pass(models, tmp_path, monkeypatch):
    """In a workflow of Olive, where that is installed."""
    run = pytest.importorskip("olive.workflows").run
    shutil.copy(models / "lenet300.onnx", tmp_path / "in.onnx")
    shutil.copy(models / "digits-calib.npz", tmp_path / "samples.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES / "olive")
    workflow = json.loads((EXAMPLES / "olive" / "workflow.json").read_text())
    run(workflow, package_config=str(EXAMPLES / "olive" / "packages.json"))
    sys.modules.pop("onnx_sipp_olive", None)
    (made,) = (tmp_path / "olive-out").rglob("*.onnx")
    model = Model.load(made)
    weights = [values for values in map(model.read, model.stored) if values.ndim == 2]
    zeros = sum(int((values == 0).sum()) for values in weights)
    assert zeros == round(0.7 * sum(values.size for values in weights))
