"""Tests of what users are warned of."""

from dataclasses import replace

import pytest
from small_models import make_model, weights

from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.report.cautions import STRONG_DAMPING, layer_cautions
from onnx_sipp.report.result import LayerReport


@pytest.fixture(scope="module")
def dense():
    return lower(Model.load(make_model([("MatMul", "x a", "y")], {"a": weights(4, 3)})))


def row(name, **changes):
    plain = LayerReport(name, "MatMul", "a", [4, 3], 12, 6, 0.1, 0.1, 1.0, 1.0, 0, 3, 0.1)
    return replace(plain, **{"damping": 0.1, **changes})


def told(dense, rows):
    return layer_cautions(rows, find_layers(dense), dense)


def test_nothing_to_tell(dense):
    assert told(dense, [row("a"), row("b", damping=None)]) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"damping": 0.0}, "was not used in"),
        ({"damping": 2 * STRONG_DAMPING}, "damped strongly"),
        ({"observed": False}, "no sample reached"),
    ],
)
def test_layers_are_named(dense, changes, words):
    (warning,) = told(dense, [row("one"), row("two", **changes), row("three", **changes)])
    assert words in warning
    assert warning.endswith("two, three")


def test_of_many_layers_the_first_are_named(dense):
    rows = [row(f"layer{index}", damping=2 * STRONG_DAMPING) for index in range(30)]
    (warning,) = told(dense, rows)
    assert "layer7 and 22 more (see the report)" in warning
    assert "layer8" not in warning
