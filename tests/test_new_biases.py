"""A bias is added to a node that has none, where that helps."""

import io

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from small_models import make_model, save_external, weights, without_new_biases

from onnx_sipp import prune
from onnx_sipp.report.summary import print_report

FAST = {"allocation": "neuron", "candidates": ("activation",), "threads": 1, "sparsity": 0.7}
RNG = np.random.default_rng(0)
# Inputs whose means pruning loses.
ROWS = (2 + RNG.standard_normal((120, 8))).astype(np.float32)
IMAGES = (2 + RNG.standard_normal((60, 4, 6, 6))).astype(np.float32)
IMAGE = {"x": ["n", 4, 6, 6]}


def gemm(**attributes):
    nodes = [("Gemm", "x w", "h", {"name": "layer", **attributes}), ("Relu", "h", "y")]
    shape = (6, 8) if attributes.get("transB") else (8, 6)
    return make_model(nodes, {"w": weights(*shape)}, {"x": ["n", 8]}, {"y": ["n", 6]})


def conv(**attributes):
    nodes = [("Conv", "x w", "h", {"name": "layer", **attributes}), ("Relu", "h", "y")]
    size = 6 if "pads" in attributes else 4
    weight = weights(6, 4 // attributes.get("group", 1), 3, 3)
    return make_model(nodes, {"w": weight}, IMAGE, {"y": ["n", 6, size, size]})


CASES = {
    "Gemm": (gemm(), ROWS),
    "Gemm, transposed": (gemm(transB=1), ROWS),
    "Gemm, scaled": (gemm(alpha=0.5, beta=2.0), ROWS),
    "Conv": (conv(), IMAGES),
    "Conv, padded": (conv(pads=[1, 1, 1, 1]), IMAGES),
    "Conv, grouped": (conv(group=2), IMAGES),
}


def run(proto, x):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def error(before, after):
    return float(np.sum((after - before) ** 2) / np.sum(before**2))


@pytest.mark.parametrize("name", CASES)
def test_a_bias_is_added(name):
    proto, x = CASES[name]
    result = prune(proto, x, **FAST)
    (row,) = result.report.layers
    assert (row.bias, row.bias_is_new) == ("w_bias", True)
    assert result.report.zeros == round(0.7 * result.report.prunable)
    onnx.checker.check_model(result.model)
    (added,) = (t for t in result.model.graph.initializer if t.name == "w_bias")
    assert numpy_helper.to_array(added).shape == (6,)
    # It is the only difference beside the weights.
    plain = without_new_biases(result.model, result.report)
    given = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in (*plain.graph.initializer, *given.graph.initializer):
        tensor.ClearField("raw_data")
    assert plain == given


@pytest.mark.parametrize("name", CASES)
def test_it_lowers_the_error(name, monkeypatch):
    proto, x = CASES[name]
    errors = {}
    for worth in (0.95, 0.0):
        monkeypatch.setattr("onnx_sipp.pruning.mixing._WORTH_A_BIAS", worth)
        result = prune(proto, x, **FAST)
        errors[worth] = error(run(proto, x), run(result.model, x))
        assert result.report.layers[0].bias_is_new == (worth > 0)
        if worth == 0:
            assert result.report.layers[0].bias == ""
            assert result.model.graph.node == proto.graph.node
    assert errors[0.95] < errors[0.0]


def test_none_is_added_where_it_does_not_help():
    x = RNG.standard_normal((2000, 8)).astype(np.float32)
    x -= x.mean(axis=0)
    proto = make_model([("Gemm", "x w", "y")], {"w": weights(8, 6)}, {"x": ["n", 8]})
    result = prune(proto, x, **FAST)
    assert result.report.layers[0].bias == ""
    assert result.model.graph.node == proto.graph.node
    assert len(result.model.graph.initializer) == 1


@pytest.mark.parametrize(
    ("nodes", "bias"),
    [
        ([("MatMul", "x w", "h"), ("Relu", "h", "y")], ""),
        ([("MatMul", "x w", "h"), ("Add", "h c", "y")], "c"),
        ([("Gemm", "x w", "h"), ("Add", "h c", "y")], "c"),
        ([("Gemm", "x w", "h"), ("BatchNormalization", "h k c m v", "y")], "c"),
    ],
)
def test_other_places_come_first(nodes, bias):
    values = {"c": weights(6), "k": weights(6), "m": weights(6), "v": np.abs(weights(6)) + 1}
    used = {name for node in nodes for name in node[1].split()}
    values = {name: value for name, value in values.items() if name in used}
    proto = make_model(nodes, {"w": weights(8, 6), **values}, {"x": ["n", 8]})
    result = prune(proto, ROWS, **FAST)
    (row,) = result.report.layers
    assert (row.bias, row.bias_is_new) == (bias, False)
    assert result.model.graph.node == proto.graph.node


def layers_without_a_place():
    shared = [("Gemm", "x w", "h"), ("Relu", "h", "r"), ("Gemm", "r w", "y")]
    yield "shared weight", make_model(shared, {"w": weights(8, 8)}, {"x": ["n", 8]})
    on_the_left = [("Gemm", "w x", "y", {"transB": 1})]
    yield "weight on the left", make_model(on_the_left, {"w": weights(6, 8)}, {"x": ["n", 8]})
    old = make_model([("Conv", "x w", "y")], {"w": weights(6, 8, 1)}, {"x": ["n", 8, 1]})
    old.ir_version = 3
    old.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [6, 8, 1]))
    yield "old file", old


@pytest.mark.parametrize(("name", "proto"), list(layers_without_a_place()))
def test_layers_without_a_place(name, proto):
    x = ROWS[..., None] if name == "old file" else ROWS
    result = prune(proto, x, **FAST)
    assert not any(row.bias for row in result.report.layers)
    assert result.model.graph.node == proto.graph.node
    assert result.model.graph.input == proto.graph.input


def test_a_quantised_weight_gets_no_bias():
    nodes = [("DequantizeLinear", "q scale zero", "w"), ("Gemm", "x w", "y")]
    codes = np.clip(np.round(weights(8, 6) * 30), -127, 127).astype(np.int8)
    values = {"q": codes, "scale": np.float32(1 / 30), "zero": np.int8(0)}
    result = prune(make_model(nodes, values, {"x": ["n", 8]}), ROWS, **FAST)
    assert [row.bias for row in result.report.layers] == [""]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types(dtype):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weight = {"w": weights(8, 6).astype(dtype)}
    proto = make_model([("Gemm", "x w", "y")], weight, {"x": ["n", 8]}, {"y": ["n", 6]})
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = kind
    result = prune(proto, {"x": ROWS.astype(dtype)}, **FAST)
    assert result.report.layers[0].bias_is_new
    assert result.model.graph.initializer[-1].data_type == kind
    onnx.checker.check_model(result.model)


def test_names_are_unique():
    nodes = [
        ("Gemm", "x w", "w_bias"),
        ("Relu", "w_bias", "w_bias/1"),
        ("Gemm", "w_bias/1 v", "y"),
    ]
    proto = make_model(nodes, {"w": weights(8, 6), "v": weights(6, 3)}, {"x": ["n", 8]})
    result = prune(proto, ROWS, **FAST)
    names = [row.bias for row in result.report.layers]
    assert names[0] == "w_bias/2"
    assert names[1] in ("", "v_bias")
    run(result.model, ROWS)


def test_names_inside_subgraphs_are_taken_too():
    branches = {
        key: helper.make_graph(
            [helper.make_node("Identity", ["h"], ["w_bias" if key == "then_branch" else "other"])],
            key,
            [],
            [helper.make_tensor_value_info("w_bias" if key == "then_branch" else "other",
                                           TensorProto.FLOAT, None)],
        )
        for key in ("then_branch", "else_branch")
    }  # fmt: skip
    nodes = [("Gemm", "x w", "h"), helper.make_node("If", ["yes"], ["y"], **branches)]
    proto = make_model(nodes, {"w": weights(8, 6), "yes": np.bool_(True)}, {"x": ["n", 8]})
    (row,) = prune(proto, ROWS, **FAST).report.layers
    assert row.bias_is_new
    assert row.bias != "w_bias"


def test_files_with_external_data(tmp_path):
    nodes = [("Gemm", "x w", "h"), ("Relu", "h", "r"), ("Gemm", "r v c", "y")]
    values = {"w": weights(8, 6), "v": weights(6, 3), "c": weights(3)}
    proto = make_model(nodes, values, {"x": ["n", 8]})
    # A constant that stands behind the initializers, to see that none is mistaken for another.
    proto.graph.node.append(helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(
        weights(3), "k")))  # fmt: skip
    proto.graph.node.append(helper.make_node("Add", ["y", "k"], ["z"]))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 3]))
    given = onnx.ModelProto.FromString(proto.SerializeToString())
    save_external(proto, tmp_path / "in.onnx")
    inside = prune(given, ROWS, **FAST)
    outside = prune(tmp_path / "in.onnx", ROWS, **FAST)
    outside.save(tmp_path / "out.onnx")
    assert [row.bias for row in outside.report.layers] == ["w_bias", "c"]
    session = ort.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    found = session.run(["y", "z"], {"x": ROWS})
    np.testing.assert_allclose(found[0], run(inside.model, ROWS), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1] - found[0], np.tile(weights(3), (120, 1)), atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"method": "magnitude"}, {"compensate": "none"}, {"new_biases": False}]
)
def test_when_nothing_is_added(options):
    proto = make_model([("Gemm", "x w", "y")], {"w": weights(8, 6)}, {"x": ["n", 8]})
    result = prune(proto, ROWS, sparsity=0.5, threads=1, **options)
    assert result.model.graph.node == proto.graph.node


def test_layerwise_refits_add_it_too():
    proto = make_model([("Gemm", "x w", "y")], {"w": weights(8, 6)}, {"x": ["n", 8]})
    result = prune(proto, ROWS, **FAST, compensate="layerwise")
    assert result.report.layers[0].bias_is_new


def test_the_table_tells():
    proto = make_model([("Gemm", "x w", "y", {"name": "[only]"})], {"w": weights(8, 6)},
                       {"x": ["n", 8]})  # fmt: skip
    console = Console(file=io.StringIO(), width=160)
    print_report(prune(proto, ROWS, **FAST).report, console)
    assert "biases added" in console.file.getvalue()
    assert console.file.getvalue().count("[only]") > 1
