"""Each kind of layer is refitted like the plain layer that it is."""

import numpy as np
import pytest
from equivalents import as_plain_conv, assert_same_as_plain_conv
from onnx import TensorProto, helper
from quantized_models import RNG, model_of, scales
from small_models import make_model, weights

FLOAT, UINT8, INT32 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT32


def correlated(count, *shape, seed=0):
    """Samples whose second axis says something of itself."""
    values = weights(count, *shape, seed=seed)
    values[:, :, 1:] += 0.7 * values[:, :, :-1]
    return [{"x": value} for value in values]


def one(op_type, inputs, values, feeds, domain="", **attributes):
    """A model of one node that takes ``x``."""
    names = ["" if name == "_" else name for name in inputs.split()]
    node = helper.make_node(op_type, names, ["y"], name="n", domain=domain, **attributes)
    used = {name: value for name, value in values.items() if name in names}
    shapes = {name: value.shape for name, value in feeds[0].items()}
    return make_model([node], used, inputs=shapes, domains=[domain] * bool(domain))


CONVOLUTIONS = {
    "plain": ({}, (4, 3, 3), 1),
    "strided": ({"strides": [2], "pads": [1, 0], "output_padding": [1]}, (4, 3, 3), 1),
    "groups": ({"strides": [2, 1], "group": 2}, (4, 3, 2, 2), 2),
    "output shape": ({"strides": [2, 2], "output_shape": [7, 9]}, (4, 3, 3, 2), 2),
    "same": ({"strides": [2], "dilations": [2], "auto_pad": "SAME_LOWER"}, (4, 3, 3), 1),
}


@pytest.mark.parametrize(("attributes", "shape", "axes"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("bias", ["", " b"])
def test_conv_transpose(attributes, shape, axes, bias):
    feeds = correlated(20, 1, shape[0], *(4, 5)[:axes])
    neurons = shape[1] * attributes.get("group", 1)
    values = {"w": weights(*shape), "b": weights(neurons, seed=2)}
    assert_same_as_plain_conv(
        one("ConvTranspose", "x w" + bias, values, feeds, **attributes), feeds
    )


def test_gemm_of_a_transposed_activation():
    feeds = correlated(30, 6, 9)
    values = {"w": weights(6, 4), "b": weights(4, seed=1)}
    assert_same_as_plain_conv(one("Gemm", "x w b", values, feeds, transA=1), feeds)


def test_gemm_with_the_constant_on_the_left():
    feeds = correlated(30, 9, 6)
    assert_same_as_plain_conv(one("Gemm", "w x", {"w": weights(4, 6)}, feeds, transB=1), feeds)


@pytest.mark.parametrize(
    ("of_weight", "of_activation"),
    [((3, 5, 4), (3, 7, 5)), ((2, 1, 5, 4), (2, 3, 7, 5)), ((1, 3, 5, 4), (2, 1, 7, 5))],
)
def test_batched_matmul(of_weight, of_activation):
    feeds = correlated(20, *of_activation)
    assert_same_as_plain_conv(one("MatMul", "x w", {"w": weights(*of_weight)}, feeds), feeds)


EQUATIONS = {
    "abc,cd->abd": ((5, 4), (2, 7, 5)),
    "abc,dc->adb": ((4, 5), (2, 7, 5)),
    "abc,cde->abde": ((5, 2, 3), (2, 7, 5)),
    "abcd,cde->abe": ((2, 3, 4), (2, 7, 2, 3)),
    "abc,bcd->abd": ((2, 5, 3), (7, 2, 5)),
    "...c,dc->...d": ((4, 5), (2, 7, 5)),
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation):
    of_weight, of_activation = EQUATIONS[equation]
    feeds = correlated(20, *of_activation)
    proto = one("Einsum", "x w", {"w": weights(*of_weight)}, feeds, equation=equation)
    assert_same_as_plain_conv(proto, feeds)


def test_einsum_with_a_bias_of_several_axes():
    feeds = correlated(20, 2, 7, 5)
    nodes = [
        helper.make_node("Einsum", ["x", "w"], ["h"], name="n", equation="abc,cde->abde"),
        helper.make_node("Add", ["h", "b"], ["y"]),
    ]
    values = {"w": weights(5, 2, 3), "b": weights(2, 3, seed=1)}
    proto = make_model(nodes, values, inputs={"x": [2, 7, 5]})
    assert_same_as_plain_conv(proto, feeds)
    assert "b" in as_plain_conv(proto, feeds)[0].graph.node[0].input


RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(op_type, feeds, lengths, **attributes):
    rows, directions = 3 * RECURRENT[op_type], 2
    values = {
        "w": weights(directions, rows, 4),
        "r": weights(directions, rows, 3, seed=1),
        "b": weights(directions, 2 * rows, seed=2),
        "n": np.array([6, 4], np.int32),
    }
    return one(
        *(op_type, f"x w r b {'n' if lengths else '_'}", values, feeds),
        hidden_size=3,
        direction="bidirectional",
        **attributes,
    )


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize(
    ("op_type", "part"),
    [
        ("LSTM", "W forward"),
        ("LSTM", "R reverse"),
        ("RNN", "R forward"),
        ("GRU", "W reverse"),
        ("GRU", "R zr forward"),
        ("GRU", "R h reverse"),
    ],
)
def test_recurrent(op_type, part, lengths):
    feeds = correlated(20, 6, 2, 4)
    assert_same_as_plain_conv(recurrent(op_type, feeds, lengths), feeds, f"n ({part})")


def test_sequences_of_any_length_in_one_batch():
    """The first samples have the same lengths: they could be run together, the others could not."""
    rows = 3 * RECURRENT["LSTM"]
    values = {"w": weights(1, rows, 4), "r": weights(1, rows, 3, seed=1)}
    nodes = [
        helper.make_node("Transpose", ["x"], ["s"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["s", "w", "r", "", "n"], ["y"], name="n", hidden_size=3),
    ]
    proto = make_model(nodes, values, inputs={"x": ["b", 6, 4], "n": ["b"]})
    proto.graph.input[1].type.tensor_type.elem_type = INT32
    lengths = [[5], [5], *([n % 6 + 1] for n in range(18))]
    feeds = correlated(20, 1, 6, 4)
    feeds = [{**feed, "n": np.array(n, np.int32)} for feed, n in zip(feeds, lengths, strict=True)]
    for part in "WR":
        assert_same_as_plain_conv(proto, feeds, f"n ({part})")


def test_gru_that_is_linear_before_its_reset():
    feeds = correlated(20, 6, 2, 4)
    proto = recurrent("GRU", feeds, lengths=False, linear_before_reset=1)
    assert_same_as_plain_conv(proto, feeds, "n (R forward)")


CONTRIB = {
    "FusedConv": ("x w b", {"w": (4, 3, 2), "b": (4,)}, (2, 3, 6), {"activation": "Tanh"}),
    "FusedGemm": ("x w b", {"w": (5, 4), "b": (4,)}, (7, 5), {"activation": "Tanh"}),
    "FusedMatMul": ("x w", {"w": (4, 5)}, (2, 5, 7), {"transA": 1, "transB": 1, "alpha": 0.5}),
    "Attention": ("x w b", {"w": (6, 18), "b": (18,)}, (2, 3, 6), {"num_heads": 2}),
}


@pytest.mark.parametrize("op_type", CONTRIB)
def test_contrib(op_type):
    inputs, shapes, of_activation, attributes = CONTRIB[op_type]
    feeds = correlated(20, *of_activation)
    values = {name: weights(*shape, seed=3) for name, shape in shapes.items()}
    proto = one(op_type, inputs, values, feeds, "com.microsoft", **attributes)
    # What follows the layer is not linear: the budget is not chosen by it, there is one layer.
    assert_same_as_plain_conv(proto, feeds)


def quantised(shape, axis, *, per_channel):
    """Weights of few levels' range, so that a refit stays in it; and their scales and zeros."""
    count = (shape[axis],) if per_channel else ()
    around = np.linspace(-3, 3, count[0]).astype(np.int8) if count else np.int8(2)
    along = [-1 if at == axis else 1 for at in range(len(shape))]
    spread = RNG.integers(-40, 41, shape)
    spread[spread == 0] = 5
    return {
        "w": (spread + np.reshape(around, along if count else ())).astype(np.int8),
        "ws": scales(*count),
        "wz": around,
        "xs": np.float32(0.02),
        "xz": np.uint8(128),
        "ys": np.float32(0.5),
        "yz": np.uint8(128),
    }


QUANTISED = {
    "QLinearConv": ("x xs xz w ws wz ys yz b", (4, 3, 2), 0, (2, 3, 9), UINT8, ""),
    "ConvInteger": ("x w xz wz", (4, 3, 2), 0, (2, 3, 9), INT32, ""),
    "QLinearMatMul": ("x xs xz w ws wz ys yz", (6, 4), 1, (2, 7, 6), UINT8, ""),
    "MatMulInteger": ("x w xz wz", (6, 4), 1, (2, 7, 6), INT32, ""),
    "MatMulIntegerToFloat": ("x w xs ws xz wz c", (6, 4), 1, (7, 6), FLOAT, "com.microsoft"),
    "QGemm": ("x xs xz w ws wz b", (6, 4), 1, (7, 6), FLOAT, "com.microsoft"),
}


# onnxruntime's ConvInteger takes one zero point.
CASES = [(op, False) for op in QUANTISED] + [(op, True) for op in QUANTISED if op != "ConvInteger"]


@pytest.mark.parametrize(("op_type", "per_channel"), CASES)
def test_quantised(op_type, per_channel):
    inputs, of_weight, axis, of_activation, kind, domain = QUANTISED[op_type]
    values = quantised(of_weight, axis, per_channel=per_channel)
    values |= {"b": RNG.integers(-900, 900, 4).astype(np.int32), "c": weights(4)}
    if op_type == "QLinearConv" and per_channel:
        values["wz"] = np.zeros(4, np.int8)  # onnxruntime takes no other
    feeds = correlated(20, *of_activation)
    feeds = [{"x": np.clip(x["x"] * 30 + 128, 0, 255).astype(np.uint8)} for x in feeds]
    names = inputs.split()
    node = helper.make_node(op_type, names, ["y"], name="n", domain=domain)
    used = {name: value for name, value in values.items() if name in names}
    distance = np.reshape(values["ws"], (-1, 1) if per_channel else ())
    if "ws" not in names:
        distance = np.ones(())
    assert_same_as_plain_conv(model_of([node], used, feeds[0], {"y": kind}), feeds, levels=distance)
