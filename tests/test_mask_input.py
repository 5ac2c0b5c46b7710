"""Padding is not data: masked positions stay out of every statistic."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_sipp
from onnx_sipp.unfolding.base import without_padding


def model(mask_name="attention_mask"):
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((16, 16)).astype(np.float32) for _ in range(2)]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "w1"], ["c"], name="second"),
        helper.make_node("Cast", [mask_name], ["m"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "axis"], ["m3"], name="unsqueeze"),
        helper.make_node("Mul", ["c", "m3"], ["y"], name="mask"),
    ]
    graph = helper.make_graph(
        nodes,
        "masked",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "S", 16]),
            helper.make_tensor_value_info(mask_name, TensorProto.INT64, ["N", "S"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "S", 16])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
        + [numpy_helper.from_array(np.array([2]), "axis")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    return proto


def feeds(padding, name="attention_mask"):
    """40 sequences of 5 to 8 real positions, then as much padding, full of noise."""
    rng = np.random.default_rng(1)
    noise = np.random.default_rng(2)
    result = []
    for index in range(40):
        length = 5 + index % 4
        real = rng.standard_normal((1, length, 16)).astype(np.float32)
        wild = 50 * noise.standard_normal((1, padding, 16)).astype(np.float32)
        mask = np.array([[1] * length + [0] * padding])
        result.append({"x": np.concatenate([real, wild], axis=1), name: mask})
    return result


def weights_of(result):
    return [numpy_helper.to_array(t) for t in result.model.graph.initializer[:2]]


def test_padding_changes_nothing():
    plain = onnx_sipp.prune(model(), feeds(0), sparsity=0.5)
    padded = onnx_sipp.prune(model(), feeds(6), sparsity=0.5)
    for a, b in zip(weights_of(plain), weights_of(padded), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    for a, b in zip(plain.report.layers, padded.report.layers, strict=True):
        assert a.measured_error == pytest.approx(b.measured_error, rel=1e-3)
        assert a.epsilon_median == pytest.approx(b.epsilon_median, rel=1e-3)


def test_without_a_mask_padding_does_change_the_result():
    plain = onnx_sipp.prune(model(), feeds(0), sparsity=0.5, mask_input="")
    padded = onnx_sipp.prune(model(), feeds(6), sparsity=0.5, mask_input="")
    assert not np.allclose(weights_of(plain)[1], weights_of(padded)[1], atol=1e-2)


def test_a_mask_of_another_name():
    named = onnx_sipp.prune(model("real"), feeds(6, "real"), sparsity=0.5, mask_input="real")
    plain = onnx_sipp.prune(model("real"), feeds(0, "real"), sparsity=0.5)
    for a, b in zip(weights_of(plain), weights_of(named), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_an_unknown_mask_is_refused():
    with pytest.raises(onnx_sipp.UsageError, match="no input 'padding' to take as the mask"):
        onnx_sipp.prune(model(), feeds(0), sparsity=0.5, mask_input="padding")


def test_rows_are_dropped_where_the_mask_says_so():
    mask = np.array([[True, False], [True, True]])
    value = np.arange(8.0).reshape(2, 2, 2)
    np.testing.assert_array_equal(without_padding(value, mask), [[0, 1], [4, 5], [6, 7]])
    flat = value.reshape(4, 2)
    np.testing.assert_array_equal(without_padding(flat, mask), [[0, 1], [4, 5], [6, 7]])
    other = np.zeros((3, 5))
    assert without_padding(other, mask) is other
