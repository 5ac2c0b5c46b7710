"""The curve of sparsity against what it costs, from one calibration."""

import csv
import io
import json
from html.parser import HTMLParser

import numpy as np
import onnx
import pytest
from small_models import make_model, mlp, weights

from onnx_sipp import SippError, UsageError, prune, sweep
from onnx_sipp.graph.model import Model
from onnx_sipp.measures import measure_statistics
from onnx_sipp.report.sweep_html import sweep_html

DATA = weights(60, 4, seed=3)
SHARES = (0.8, 0.3, 0.5)


@pytest.fixture(scope="module")
def digits(models):
    name = models / "lenet300.onnx"
    return sweep(name, models / "digits-calib.npz", num_samples=80, threads=1, sparsities=SHARES)


def test_points_ascend_and_are_met_to_the_weight(digits):
    zeros = [round(share * digits.prunable) for share in sorted(SHARES)]
    assert [point.zeros for point in digits.points] == zeros
    errors = [point.relative_error for point in digits.points]
    assert errors == sorted(errors)


def test_more_zeros_compress_better(digits):
    for sizes in (
        [p.bytes_zstd for p in digits.points],
        [p.bytes_packed for p in digits.points],
    ):
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] < digits.dense.bytes
    assert {p.bytes for p in digits.points} == {digits.dense.bytes}


def test_a_point_is_what_prune_gives(models):
    options = {"method": "magnitude", "num_samples": 80, "threads": 1}
    name, data = models / "lenet5.onnx", models / "digits-calib.npz"
    points = sweep(name, data, sparsities=SHARES, **options).points
    for point in points:
        report = prune(name, data, sparsity=point.sparsity, **options).report
        assert point.outputs == report.outputs
        assert point.epsilon_worst == max(layer.epsilon_worst for layer in report.layers)


def test_it_calibrates_once_and_changes_nothing(models, monkeypatch):
    calls = []

    def counted(*arguments):
        calls.append(1)
        return measure_statistics(*arguments)

    monkeypatch.setattr("onnx_sipp.preparing.measure_statistics", counted)
    proto = mlp()
    before = proto.SerializeToString()
    assert len(sweep(proto, DATA, sparsities=SHARES).points) == 3
    assert len(calls) == 1
    assert proto.SerializeToString() == before


def test_the_metric_is_taken_of_every_point():
    def zeros(path):
        model = Model.load(path)
        return -sum(int(np.count_nonzero(model.read(name) == 0)) for name in ("w1", "w2"))

    found = sweep(mlp(), DATA, sparsities=SHARES, metric=zeros)
    assert found.metric_name == "zeros"
    assert found.dense.metric == 0
    assert [point.metric for point in found.points] == [-p.zeros for p in found.points]


def test_layers_alone(models):
    found = sweep(
        models / "lenet300.onnx", models / "digits-calib.npz", num_samples=80, per_layer=True,
        sparsities=(0.0, 0.5, 0.9),
    )  # fmt: skip
    names = [node.name for node in onnx.load(models / "lenet300.onnx").graph.node]
    assert [layer.name for layer in found.layers] == [n for n in names if n.startswith("fc")]
    assert sum(layer.parameters for layer in found.layers) == found.prunable
    for layer in found.layers:
        assert layer.errors[0] < 1e-5  # nothing is dropped
        assert layer.errors == sorted(layer.errors)
    assert found.points == []


def test_zeros_that_are_there_already_have_no_cost_alone():
    sparse = np.where(np.arange(32).reshape(4, 8) % 2, 0, weights(4, 8))
    model = make_model([("Gemm", "x w", "y")], {"w": sparse.astype(np.float32)})
    (layer,) = sweep(model, DATA, per_layer=True, sparsities=(0.25, 0.75)).layers
    assert layer.errors[0] is None
    assert layer.errors[1] > 0


def test_layers_cannot_be_told_apart_by_classes_alone():
    model = make_model([("Gemm", "x w", "h"), ("ArgMax", "h", "y")], {"w": weights(4, 8)})
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    with pytest.raises(SippError, match="no output of the model is a tensor of floating-point"):
        sweep(model, DATA, per_layer=True, sparsities=[0.5])


def test_csv(digits):
    rows = list(csv.DictReader(io.StringIO(digits.to_csv())))
    assert [int(row["zeros"]) for row in rows] == [point.zeros for point in digits.points]
    assert [float(row["relative_error"]) for row in rows] == [
        point.relative_error for point in digits.points
    ]
    assert {row["metric"] for row in rows} == {""}


def test_json(digits):
    data = json.loads(digits.to_json())
    assert data["schema_version"] == 1
    assert [point["bytes_packed"] for point in data["points"]] == [
        point.bytes_packed for point in digits.points
    ]


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_has_the_curve_and_nothing_from_elsewhere(digits):
    page = Page()
    text = sweep_html(digits)
    page.feed(text)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("circle") == len(digits.points)
    assert tags.count("tr") == 2 + len(digits.points)  # heads, and the dense model
    assert not any({"src", "href"} & set(attrs) for _, attrs in page.tags)


def test_names_are_escaped():
    model = make_model([("Gemm", "x w", "y")], {"w": weights(4, 8)})
    model.graph.node[0].name = "<script>"
    found = sweep(model, DATA, sparsities=[0.5], per_layer=True)
    assert "<script>" not in sweep_html(found)
    assert "&lt;script&gt;" in sweep_html(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsities": [1.0]}, "below 1"),
        ({"sparsities": []}, "below 1"),
        ({"sparsities": 0.5}, "must be a list of numbers, like .*, not 0.5"),
        ({"sparsities": "0.5"}, "must be a list of numbers"),
        ({"metric": 5}, "metric must be a text, like judge.py:accuracy, or a function"),
        ({"sparsity": 0.5}, "leave sparsity out"),
        ({"max_error": 0.5}, "leave max_error out"),
        ({"pattern": "2:4"}, "the pattern 2:4 makes"),
        ({"pattern": "channels"}, "about zeros"),
        ({"per_layer": True, "method": "magnitude"}, "leave the method and the metric out"),
        ({"spasity": 0.5}, "there is no option 'spasity'"),
    ],
)
def test_what_makes_no_sense(options, message):
    with pytest.raises(UsageError, match=message):
        sweep(mlp(), DATA, **options)
