"""The report as plain data."""

import json
import math

import numpy as np
import pytest
from small_models import mlp

from onnx_sipp import prune
from onnx_sipp.report.result import SCHEMA_VERSION, Report

DATA = np.random.default_rng(0).standard_normal((30, 4), np.float32)


@pytest.fixture(scope="module")
def report():
    return prune(mlp(), DATA, sparsity=0.5, method="sipp-hybrid", delta=0.1).report


def walk(value):
    yield value
    children = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        for child in children:
            yield from walk(child)


def test_json_is_plain(report):
    data = json.loads(report.to_json())
    assert data["schema_version"] == SCHEMA_VERSION
    assert data["zeros"] == 28
    assert data["sparsity"] == 0.5
    assert data["options"]["method"] == "sipp-hybrid"
    assert [row["name"] for row in data["layers"]] == ["first", "second"]
    assert data["layers"][0]["sparsity"] == data["layers"][0]["zeros"] / 32
    assert data == report.to_dict()


def test_every_layer_has_a_certificate_and_a_measured_error(report):
    for row in json.loads(report.to_json())["layers"]:
        for key in ("epsilon_worst", "epsilon_median", "sensitivity_sum_worst", "measured_error"):
            assert row[key] >= 0
        assert row["halves"] > 0
    calibration = report.to_dict()["calibration"]
    assert (calibration["samples"], calibration["held_out"]) == (24, 6)
    assert calibration["samples_needed"] > 24
    assert calibration["delta"] == 0.1


def test_infinities_become_null(report):
    data = report.__dict__ | {"seconds": math.inf, "options": {"a": [math.nan, 1.0]}}
    plain = json.loads(Report(**data).to_json())
    assert plain["seconds"] is None
    assert plain["options"] == {"a": [None, 1.0]}
    kinds = (dict, list, str, int, float, bool, type(None))
    assert all(isinstance(value, kinds) for value in walk(Report(**data).to_dict()))


def test_options_are_enough_to_repeat_the_run(report):
    again = prune(mlp(), DATA, **{k: v for k, v in report.options.items() if v is not None})
    rows = [(row.zeros, row.epsilon_worst, row.measured_error) for row in report.layers]
    assert [
        (row.zeros, row.epsilon_worst, row.measured_error) for row in again.report.layers
    ] == rows


def test_nothing_to_divide_by(report):
    empty = Report(**report.__dict__ | {"prunable": 0, "zeros": 0})
    assert empty.sparsity == 0
