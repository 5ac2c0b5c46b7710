"""Biases of zeros in the lowered graph, and how they reach the original."""

import numpy as np
import onnx
import pytest
from onnx import helper
from small_models import constant, make_model, save_external, weights

from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.tail import find_tail

W = weights(4, 6)


def lowered(proto):
    return lower(Model.load(proto), spare_biases=True)


def spare_of(nodes, constants=None, inputs=None, **how):
    return lowered(make_model(nodes, {"w": W, **(constants or {})}, inputs, **how)).plan.spare


def test_only_where_it_is_asked_for():
    proto = make_model([("Gemm", "x w", "y")], {"w": W})
    assert lower(Model.load(proto)).plan.spare == {}
    assert lowered(proto).plan.spare == {"w_bias": "y"}


@pytest.mark.parametrize(
    ("nodes", "constants", "inputs"),
    [
        ([("MatMul", "x w", "y")], {}, None),
        ([("Gemm", "x w c", "y")], {"c": weights(6)}, None),
        ([("Gemm", "w x", "y")], {}, {"x": [6, "n"]}),
        ([("Gemm", "x v", "y")], {}, {"x": ["n", 4], "v": [4, 6]}),
        ([("Gemm", "w v", "k"), ("Add", "x k", "y")], {"v": weights(6, 4)}, None),
        ([("Transpose", "q", "w2"), ("DequantizeLinear", "w2 s", "v"), ("Gemm", "x v", "y")],
         {"q": np.ones((6, 4), np.int8), "s": np.float32(0.1)}, None),
    ],
)  # fmt: skip
def test_nodes_that_get_none(nodes, constants, inputs):
    assert spare_of(nodes, constants, inputs) == {}


@pytest.mark.parametrize(
    ("node", "weight", "size"),
    [
        (("Conv", "x v", "y"), weights(6, 4, 3), 6),
        (("Conv", "x v", "y", {"group": 2}), weights(6, 2, 3).astype(np.float16), 6),
        (("Gemm", "x v", "y"), weights(4, 6), 6),
        (("Gemm", "x v", "y", {"transB": 1}), weights(6, 4).astype(np.float64), 6),
    ],
)
def test_sizes_and_types(node, weight, size):
    model = lowered(make_model([node], {"v": weight}, {"x": ["n", 4, 5]}))
    zeros = model.read("v_bias")
    assert (zeros.shape, zeros.dtype) == ((size,), weight.dtype)
    assert not zeros.any()
    assert list(model.proto.graph.node[0].input) == ["x", "v", "v_bias"]
    assert model.is_spare("v_bias")
    assert model.is_exclusive("v_bias")
    assert not model.is_spare("v")


def test_a_weight_that_comes_by_a_route():
    nodes = [("Transpose", "w", "t"), ("Gemm", "x t", "y")]
    model = lowered(make_model(nodes, {"w": W.T.copy()}, outputs={"y": ["n", 6]}))
    ((name, output),) = model.plan.spare.items()
    assert output == "y"
    model.replace(name, np.arange(6, dtype=np.float32))
    original = model.result().proto
    assert list(original.graph.node[1].input) == ["x", "t", name]
    onnx.checker.check_model(original)


def test_a_written_bias_reaches_the_original_and_others_do_not():
    nodes = [("Gemm", "x w", "h"), ("Gemm", "h v", "y")]
    proto = make_model(nodes, {"w": W, "v": weights(6, 2)})
    model = lowered(proto)
    values = np.arange(6, dtype=np.float32)
    model.replace("w_bias", values)
    copy = model.copy()
    model.replace("w_bias", np.zeros(6, np.float32))
    assert model.result().proto == proto
    result = copy.result()
    first, second = result.proto.graph.node
    assert (list(first.input), list(second.input)) == (["x", "w", "w_bias"], ["h", "v"])
    assert [t.name for t in result.proto.graph.initializer] == ["w", "v", "w_bias"]
    np.testing.assert_array_equal(result.read("w_bias"), values)
    assert copy.weight_name("w_bias") == "w_bias"


def test_an_empty_third_input_is_filled():
    proto = make_model([helper.make_node("Gemm", ["x", "w", ""], ["y"])], {"w": W})
    model = lowered(proto)
    model.replace("w_bias", np.ones(6, np.float32))
    assert list(model.result().proto.graph.node[0].input) == ["x", "w", "w_bias"]


def test_replaced_payloads_in_external_files_stay_with_their_constants(tmp_path):
    nodes = [("Gemm", "x w", "h"), constant("k", weights(6)), ("Add", "h k", "y")]
    path = save_external(make_model(nodes, {"w": W}), tmp_path / "m.onnx")
    model = lower(Model.load(path), spare_biases=True)
    model.replace("w", 2 * W)
    model.replace("k", weights(6, seed=5))
    model.replace("w_bias", np.ones(6, np.float32))
    result = model.result()
    np.testing.assert_array_equal(result.read("w"), 2 * W)
    np.testing.assert_array_equal(result.read("k"), weights(6, seed=5))
    inside = {t.name: onnx.numpy_helper.to_array(t) for t in result.inlined().graph.initializer}
    np.testing.assert_array_equal(inside["w"], 2 * W)
    np.testing.assert_array_equal(inside["w_bias"], np.ones(6))


def tail_of(nodes, constants):
    model = lowered(make_model(nodes, {"w": W, **constants}))
    return find_tail(model, Flow(model), find_layers(model).layers[0])


def test_the_tail_takes_it_if_there_is_nothing_else():
    tail = tail_of([("Gemm", "x w", "y", {"alpha": 3.0, "beta": 2.0})], {})
    assert tail.bias.name == "w_bias"
    np.testing.assert_array_equal(tail.bias.factor, np.full(6, 1.5))
    assert tail_of([("Gemm", "x w", "y", {"beta": 0.0})], {}).bias is None
    assert tail_of([("Gemm", "x w", "h"), ("Add", "h c", "y")], {"c": weights(6)}).bias.name == "c"
    read_twice = [("Gemm", "x w", "h"), ("Add", "h c", "k"), ("Mul", "k c", "y")]
    assert tail_of(read_twice, {"c": weights(6)}).bias.name == "w_bias"
