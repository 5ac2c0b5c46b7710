"""Channels cut out of trained models, end to end."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from cutting import between
from small_models import make_model, weights

import onnx_sipp
from onnx_sipp.cli.main import cli
from onnx_sipp.errors import SippError, UsageError

FAST = {"num_samples": 64, "threads": 1, "pattern": "channels"}


def signature(model):
    return [v.SerializeToString() for v in (*model.graph.input, *model.graph.output)]


def predictions(model, images):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": images})[0].argmax(axis=1)


@pytest.mark.parametrize("name", ["lenet5", "resnet_bn", "transformer"])
def test_a_trained_model_loses_half_its_multiply_adds(models, name):
    calib = np.load(models / "digits-calib.npz")
    result = onnx_sipp.prune(models / f"{name}.onnx", calib["input"], macs=0.5, **FAST)
    cut, before = result.report.cut, onnx.load(models / f"{name}.onnx")
    assert cut.macs_after <= 0.5 * cut.macs_before
    assert signature(result.model) == signature(before)
    onnx.checker.check_model(result.model, full_check=True)
    test = np.load(models / "digits-test.npz")
    same = predictions(result.model, test["input"]) == predictions(before, test["input"])
    assert same.mean() >= 0.85
    kept = {group.name: group.kept for group in cut.groups}
    assert all(bool(group.reason) == (group.kept == group.units) for group in cut.groups)
    assert all(group.reason for group in cut.groups if group.units == 10)
    assert all(count > 0 for count in kept.values())


def test_parameters_are_counted_as_they_are(models):
    result = onnx_sipp.prune(models / "lenet5.onnx", models / "digits-calib.npz", sparsity=0.6,
                             **FAST)  # fmt: skip
    count = sum(np.prod(t.dims) for t in result.model.graph.initializer if t.data_type == 1)
    assert result.report.cut.parameters_after == count
    assert count <= 0.4 * result.report.cut.parameters_before


def test_latency_is_measured(models):
    data = models / "digits-calib.npz"
    result = onnx_sipp.prune(models / "resnet_bn.onnx", data, latency=0.9, **FAST)
    assert 0 < result.report.cut.latency < 1.2
    assert result.report.cut.macs_after < result.report.cut.macs_before


def test_counts_are_on_the_grid(models):
    data = models / "digits-calib.npz"
    result = onnx_sipp.prune(models / "resnet_bn.onnx", data, macs=0.5, align=4, **FAST)
    for tensor in result.model.graph.initializer:
        if len(tensor.dims) == 4:
            assert tensor.dims[0] % 4 == 0


def test_the_refit_repairs_what_cutting_breaks(models):
    """Without one, half of the channels less leave little of the output."""
    data = models / "digits-calib.npz"
    result = onnx_sipp.prune(models / "resnet_bn.onnx", data, macs=0.5, **FAST)
    assert result.report.outputs[0].relative_error < 0.3


def test_too_much_is_refused_with_the_reasons(models):
    with pytest.raises(SippError, match=r"(?s)not so much can be cut.*LayerNormalization"):
        onnx_sipp.prune(models / "transformer.onnx", models / "digits-calib.npz", macs=0.01, **FAST)


def test_a_model_without_channels_is_refused():
    model = make_model([("Gemm", "x w", "y")], {"w": weights(4, 3)})
    with pytest.raises(SippError, match=r"(?s)no channels can be cut.*output 'y'"):
        onnx_sipp.prune(model, macs=0.5, **FAST)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"macs": 0.5}, "add --pattern channels"),
        ({"align": 4}, "add --pattern channels"),
        ({"pattern": "channels", "macs": 0.5, "latency": 0.5}, "one goal"),
        ({"pattern": "channels", "macs": 0.5, "sparsity": 0.5}, "one goal"),
        ({"pattern": "channels", "macs": 0}, "above 0"),
        ({"pattern": "channels", "latency": 1.5}, "at most 1"),
        ({"pattern": "channels", "method": "wanda"}, "default method"),
        ({"pattern": "channels", "align": 0}, "align must be"),
        (
            {"pattern": "channels", "rounds": 3, "dead_paths": False},
            "leave rounds and dead_paths out",
        ),
        ({"pattern": "channels", "allocation": "lamp"}, "leave allocation out"),
        ({"pattern": "channels", "new_biases": False}, "leave new_biases out"),
        ({"pattern": "channels", "floor": 0.2}, "a floor goes with"),
        ({"pattern": "channels", "candidates": ["surgeon"]}, "leave candidates out"),
    ],
)
def test_wrong_usage(options, message):
    with pytest.raises(UsageError, match=message):
        onnx_sipp.prune(between([("Relu", ["a"], ["b"])], {}), **options)


def test_command_line(models, tmp_path):
    arguments = [
        "prune", str(models / "lenet5.onnx"), str(tmp_path / "out.onnx"),
        "--calib", str(models / "digits-calib.npz"), "--pattern", "channels", "--macs", "0.5",
        "--align", "4", "--num-samples", "64", "--json", str(tmp_path / "report.json"),
    ]  # fmt: skip
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "Channels that go together" in done.output
    report = json.loads((tmp_path / "report.json").read_text())
    shapes = {t.name: list(t.dims) for t in onnx.load(tmp_path / "out.onnx").graph.initializer}
    kept = {group["name"]: group["kept"] for group in report["cut"]["groups"]}
    assert shapes["conv1.weight"][0] == kept["conv1"]
    assert report["bytes_after"] == (tmp_path / "out.onnx").stat().st_size < report["bytes_before"]
    arguments[2] = str(tmp_path / "again.onnx")
    again = [*arguments[:5], "--config", str(tmp_path / "report.json")]
    assert CliRunner().invoke(cli, again).exit_code == 0
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()
