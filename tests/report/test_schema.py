"""The published schemas are those of the reports."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from small_models import mlp, weights

from onnx_sipp import prune, sweep

ROOT = Path(__file__).resolve().parents[2]
DATA = weights(60, 4, seed=3)


def schema(name):
    return json.loads((ROOT / "docs" / name).read_text(encoding="utf-8"))


def check(data, name):
    found = schema(name)
    jsonschema.Draft202012Validator.check_schema(found)
    jsonschema.validate(data, found, cls=jsonschema.Draft202012Validator)


def test_they_are_up_to_date():
    command = [sys.executable, str(ROOT / "tools" / "make_schema.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "sipp-hybrid", "epsilon": 1.0},
        {"max_error": 0.5},
        {"storage": "packed"},
        {"pattern": "2:4"},
        {"rules": [{"nodes": "first", "sparsity": 0.6}]},
    ],
)
def test_reports_are_as_they_say(options):
    report = prune(mlp(), DATA, **options).report.to_dict()
    check(report, "report.schema.json")
    assert set(report) == set(schema("report.schema.json")["$defs"]["Report"]["properties"])


def test_reports_of_cut_models_are_too(models):
    name, data = models / "lenet300.onnx", models / "digits-calib.npz"
    report = prune(name, data, pattern="channels", sparsity=0.5, num_samples=40).report
    check(report.to_dict(), "report.schema.json")


@pytest.mark.parametrize("per_layer", [False, True])
def test_sweeps_are_too(per_layer):
    found = sweep(mlp(), DATA, sparsities=[0.3, 0.6], per_layer=per_layer)
    check(found.to_dict(), "sweep.schema.json")


def test_what_is_wrong_is_refused():
    report = prune(mlp(), DATA).report.to_dict()
    with pytest.raises(jsonschema.ValidationError):
        check({**report, "zeros": "many"}, "report.schema.json")
    del report["layers"]
    with pytest.raises(jsonschema.ValidationError):
        check(report, "report.schema.json")
