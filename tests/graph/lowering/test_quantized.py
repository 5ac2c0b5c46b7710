"""Operators of integers: the layer beside each computes in real values what the node computes."""

import numpy as np
import pytest
from lowered_models import LoweredModel, run
from onnx import TensorProto, helper
from quantized_models import FLOAT, RNG, TYPES, UINT8, levels, model_of, scales, zeros_of

from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model


def one(op_type, inputs, values, feed, kind, opset=17, domain="", **attributes):
    """A model of one node, lowered; and what it makes."""
    names = ["" if name == "_" else name for name in inputs.split()]
    node = helper.make_node(op_type, names, ["y"], name="n", domain=domain, **attributes)
    feed = {name: value for name, value in feed.items() if name in names}
    values = {name: value for name, value in values.items() if name in names}
    proto = model_of([node], values, feed, {"y": kind}, opset)
    return LoweredModel(proto, feed), run(proto, feed)["y"]


def product_of(found, name="n"):
    """What the layer makes, with its bias added."""
    layer = found.layers[name]
    readers = found.readers(layer.output)
    return found.tensor(readers[0].output[0] if readers else layer.output)


# Weight's side and type, and how many zero points it has; onnxruntime takes one per row of neither.
INTEGERS = [
    (side, kind, zero)
    for side, kinds in ((0, ["u8"]), (1, ["u8", "s8"]))
    for kind in kinds
    for zero in (["none", "one", "each"] if side == 1 else ["none", "one"])
]


@pytest.mark.parametrize(("side", "kind", "zero"), INTEGERS)
def test_matmul_integer(side, kind, zero):
    shapes = ((5, 4), (4, 3))
    kinds = ["u8", kind] if side == 1 else [kind, "s8"]
    operands = [levels(kind, *shape) for kind, shape in zip(kinds, shapes, strict=True)]
    values = {
        "w": operands[side],
        "wz": zeros_of(kind, *((3,) if zero == "each" else ())),
        "xz": np.array(7, TYPES[kinds[1 - side]]),
    }
    names = ["x w", "xz wz"] if side == 1 else ["w x", "wz xz"]
    inputs = names[0] if zero == "none" else " ".join(names)
    found, y = one("MatMulInteger", inputs, values, {"x": operands[1 - side]}, TensorProto.INT32)
    np.testing.assert_array_equal(product_of(found), y)


def test_matmul_integer_of_a_dynamically_quantised_activation():
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"], name="n"),
        helper.make_node("Cast", ["i"], ["f"], to=FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    feed = {"x": RNG.standard_normal((5, 4)).astype(np.float32)}
    proto = model_of(nodes, {"w": levels("s8", 4, 3)}, feed, {"y": FLOAT})
    found = LoweredModel(proto, feed)
    np.testing.assert_allclose(product_of(found), run(proto, feed)["y"], rtol=1e-5)


@pytest.mark.parametrize("inputs", ["x w", "x w xz", "x w xz wz"])
@pytest.mark.parametrize("attributes", [{}, {"pads": [1, 2, 0, 1], "strides": [2, 1]}])
def test_conv_integer(inputs, attributes):
    values = {"w": levels("u8", 3, 2, 2, 2), "xz": np.uint8(9), "wz": np.uint8(100)}
    feed = {"x": levels("u8", 2, 2, 5, 4)}
    found, y = one("ConvInteger", inputs, values, feed, TensorProto.INT32, **attributes)
    np.testing.assert_array_equal(product_of(found), y)


def near(real, y, scale, zero_point):
    """Whether levels stand for real values, as nearly as they can."""
    info = np.iinfo(y.dtype)
    wanted = np.clip(real / scale + zero_point, info.min, info.max)
    np.testing.assert_allclose(wanted, y, atol=0.501)


QUANTISED = {
    "xs": np.float32(0.05),
    "xz": np.uint8(120),
    "ys": np.float32(0.3),
    "yz": np.uint8(110),
}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bias", ["", " b"])
@pytest.mark.parametrize("opset", [10, 17])
@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_qlinear_conv(per_channel, bias, opset, domain):
    shape = (4,) if per_channel else ()
    values = QUANTISED | {
        "w": levels("s8", 4, 2, 3),
        "ws": scales(*shape),
        "wz": np.zeros(shape, np.int8),
        "b": RNG.integers(-500, 500, 4).astype(np.int32),
    }
    feed = {"x": levels("u8", 2, 4, 8)}
    inputs = "x xs xz w ws wz ys yz" + bias
    found, y = one(
        *("QLinearConv", inputs, values, feed, UINT8, opset, domain), group=2, pads=[1, 0]
    )
    near(product_of(found), y, values["ys"], 110)
    layer = found.layers["n"]
    assert (layer.bias is not None) == bool(bias)
    expected = (values["w"] * values["ws"].reshape(-1, 1, 1)).reshape(2, 2, 6)
    np.testing.assert_allclose(found.matrix(layer), expected, rtol=1e-6)
    if bias:
        real = values["b"] * values["xs"] * values["ws"]
        np.testing.assert_allclose(found.model.read(layer.bias), real, rtol=1e-6)


def test_qlinear_conv_channels_last():
    values = QUANTISED | {"w": levels("s8", 4, 2, 3), "ws": scales(), "wz": np.int8(0)}
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    node = helper.make_node(
        "QLinearConv", names, ["y"], name="n", domain="com.microsoft", channels_last=1
    )
    proto = model_of([node], values, {"x": levels("u8", 1, 8, 2)}, {"y": UINT8})
    (skip,) = find_layers(lower(Model.load(proto))).skipped
    assert (skip.reason, skip.parameters) == ("channels that come last are not supported", 24)


@pytest.mark.parametrize(("weight_at", "per_column"), [(0, False), (1, False), (1, True)])
def test_qlinear_matmul(per_column, weight_at):
    shape = (3,) if per_column else ()
    kind = "s8" if weight_at else "u8"
    values = QUANTISED | {
        "w": levels(kind, *((4, 3) if weight_at else (3, 4))),
        "ws": scales(*shape),
        "wz": zeros_of(kind, *shape),
    }
    feed = {"x": levels("u8", *((2, 5, 4) if weight_at else (4, 5)))}
    sides = ["x xs xz", "w ws wz"]
    inputs = " ".join(sides if weight_at else sides[::-1]) + " ys yz"
    found, y = one("QLinearMatMul", inputs, values, feed, UINT8)
    near(product_of(found), y, values["ys"], 110)


@pytest.mark.parametrize("bias", ["", " b"])
@pytest.mark.parametrize("per_column", [False, True])
def test_contrib_products(bias, per_column):
    shape = (3,) if per_column else ()
    values = {
        "w": levels("s8", 4, 3),
        "ws": scales(*shape),
        "wz": zeros_of("s8", *shape),
        "xs": scales(),
        "xz": np.uint8(99),
        "b": RNG.standard_normal(3).astype(np.float32),
    }
    feed = {"x": levels("u8", 5, 4)}
    inputs = "x w xs ws xz wz" + bias
    found, y = one("MatMulIntegerToFloat", inputs, values, feed, FLOAT, domain="com.microsoft")
    np.testing.assert_allclose(product_of(found), y, rtol=1e-4, atol=1e-5)
    feed = {"x": RNG.standard_normal((5, 4)).astype(np.float32)}
    found, y = one(
        *("DynamicQuantizeMatMul", "x w ws wz" + bias, values, feed, FLOAT), domain="com.microsoft"
    )
    np.testing.assert_allclose(product_of(found), y, atol=0.05 * np.abs(y).max())


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("bias", ["_", "c"])
def test_qgemm(transposed, per_column, bias):
    shape = (3,) if per_column else ()
    weight = levels("s8", 4, 3)
    values = {
        "w": weight.T.copy() if transposed else weight,
        "ws": scales(*shape),
        "wz": zeros_of("s8", *shape),
        "xs": np.float32(0.05),
        "xz": np.uint8(99),
        "c": RNG.integers(-5000, 5000, 3).astype(np.int32),
    }
    feed = {"x": levels("u8", 5, 4)}
    found, y = one(
        *("QGemm", f"x xs xz w ws wz {bias}", values, feed, FLOAT),
        domain="com.microsoft",
        transB=transposed,
        alpha=0.5,
    )
    np.testing.assert_allclose(product_of(found), y, rtol=1e-4, atol=1e-4)


def test_parameters_that_vary():
    node = helper.make_node("MatMulInteger", ["x", "w", "xz", "wz"], ["y"], name="n")
    feed = {"x": levels("u8", 5, 4), "wz": np.int8(3)}
    values = {"w": levels("s8", 4, 3), "xz": np.uint8(1)}
    proto = model_of([node], values, feed, {"y": TensorProto.INT32})
    (skip,) = find_layers(lower(Model.load(proto))).skipped
    assert skip.reason == "its quantisation parameter 'wz' is no constant"


def test_no_constant():
    nodes = [
        helper.make_node("MatMulInteger", ["x", "x"], ["a"]),
        helper.make_node("ConvInteger", ["x", "x"], ["b"]),
        helper.make_node("QLinearConv", ["x", "s", "z", "x", "s", "z", "s", "z"], ["c"]),
        helper.make_node("QLinearMatMul", ["x", "s", "z", "x", "s", "z", "s", "z"], ["d"]),
    ]
    values = {"s": np.float32(1), "z": np.uint8(0)}
    outputs = {"a": TensorProto.INT32, "b": TensorProto.INT32, "c": UINT8, "d": UINT8}
    proto = model_of(nodes, values, {"x": levels("u8", 2, 2, 3)}, outputs)
    found = find_layers(lower(Model.load(proto)))
    assert (found.layers, found.skipped) == ((), ())
