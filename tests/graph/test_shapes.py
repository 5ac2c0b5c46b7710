"""Shapes that follow from the graph."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_models import make_model, save_external, weights

from onnx_sipp.graph.model import Model
from onnx_sipp.graph.shapes import TensorKind, infer_kinds

FLOAT = TensorProto.FLOAT


def reshaping():
    nodes = [("Conv", "x w", "h"), ("Reshape", "h s", "f"), ("Gemm", "f v", "y")]
    values = {"w": weights(6, 3, 3, 3), "s": np.array([0, -1]), "v": weights(24, 700)}
    return make_model(nodes, values, {"x": ["n", 3, 4, 4]})


def test_shapes_of_all_tensors():
    kinds = infer_kinds(Model.load(reshaping()))
    assert kinds["x"] == TensorKind(FLOAT, (None, 3, 4, 4))
    assert kinds["h"] == TensorKind(FLOAT, (None, 6, 2, 2))
    assert kinds["f"] == TensorKind(FLOAT, (None, 24))
    assert kinds["y"] == TensorKind(FLOAT, (None, 700))
    assert kinds["v"] == TensorKind(FLOAT, (24, 700))
    assert kinds["s"].element == TensorProto.INT64


def test_external_data(tmp_path):
    kinds = infer_kinds(Model.load(save_external(reshaping(), tmp_path / "m.onnx")))
    assert kinds["f"].shape == (None, 24)


def test_stale_notes_are_not_believed():
    proto = reshaping()
    proto.graph.value_info.append(helper.make_tensor_value_info("h", FLOAT, [1, 99, 2, 2]))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", FLOAT, [9, 9, 9]))
    kinds = infer_kinds(Model.load(proto))
    assert kinds["h"].shape == (None, 6, 2, 2)
    assert kinds["y"].shape == (None, 700)


def test_unknown_operators_end_the_inference():
    nodes = [helper.make_node("Foo", ["x"], ["h"], domain="bar"), ("Relu", "h", "y")]
    kinds = infer_kinds(Model.load(make_model(nodes, {}, domains=["bar"])))
    assert "x" in kinds
    assert "h" not in kinds
    assert "y" not in kinds


def test_a_graph_that_inference_fails_on(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no")

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", fail)
    kinds = infer_kinds(Model.load(reshaping()))
    assert kinds["x"].shape == (None, 3, 4, 4)
    assert "h" not in kinds


@pytest.mark.parametrize("dims", [["n", 4], [0, 4]])
def test_open_axes(dims):
    kinds = infer_kinds(Model.load(make_model([("Relu", "x", "y")], {}, {"x": dims})))
    assert kinds["y"].shape == (None, 4)
