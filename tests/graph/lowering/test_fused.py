"""Fused operators are what onnxruntime makes of them, written out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered_models import LoweredModel
from onnx import helper
from small_models import make_model, weights

from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model

ACTIVATIONS = {
    "Relu": [],
    "Sigmoid": [],
    "Tanh": [],
    "LeakyRelu": [0.2],
    "Clip": [-0.3, 0.5],
    "HardSigmoid": [0.3, 0.4],
}


def contrib(op_type, inputs, values, feed, opset=17, **attributes):
    """A model of one node of com.microsoft, lowered."""
    node = helper.make_node(
        op_type, inputs.split(" "), ["y"], name="n", domain="com.microsoft", **attributes
    )
    shapes = {name: value.shape for name, value in feed.items()}
    proto = make_model([node], values, inputs=shapes, domains=["com.microsoft"])
    proto.opset_import[0].version = opset
    return LoweredModel(proto, feed)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize("inputs", ["x w", "x w b", "x w b z"])
def test_fused_conv(activation, opset, inputs):
    values = {"w": weights(4, 1, 3, 2), "b": weights(4)}
    feed = {"x": weights(2, 2, 6, 5, seed=3), "z": weights(2, 4, 3, 5, seed=4)}
    attributes = {"pads": [1, 0, 0, 1], "strides": [2, 1], "group": 2}
    if ACTIVATIONS[activation]:
        attributes["activation_params"] = ACTIVATIONS[activation]
    found = contrib(
        *("FusedConv", inputs, values),
        {name: value for name, value in feed.items() if name in inputs},
        opset,
        activation=activation,
        **attributes,
    )
    layer = found.layers["n"]
    assert (layer.op_type, layer.kind, layer.weight) == ("com.microsoft.FusedConv", "Conv", "w")
    assert layer.bias == ("b" if "b" in inputs else None)


def test_fused_conv_without_an_activation():
    assert contrib("FusedConv", "x w", {"w": weights(4, 2, 3)}, {"x": weights(1, 2, 5)}).layers


def test_an_activation_that_is_not_known():
    node = helper.make_node(
        "FusedConv", ["x", "w"], ["y"], name="n", domain="com.microsoft", activation="Other"
    )
    proto = make_model([node], {"w": weights(4, 2, 3)}, domains=["com.microsoft"])
    (skip,) = find_layers(lower(Model.load(proto))).skipped
    assert (skip.reason, skip.parameters) == ("its activation Other is not known", 24)


@pytest.mark.parametrize("bias", ["", "c"])
@pytest.mark.parametrize(
    "attributes",
    [
        {"activation": "Relu"},
        {"activation": "LeakyRelu", "activation_alpha": 0.2, "transB": 1, "alpha": 0.5},
        {"activation": "HardSigmoid", "activation_alpha": 0.2, "activation_beta": 0.4, "transA": 1},
    ],
)
def test_fused_gemm(attributes, bias):
    values = {"w": weights(4, 3), "c": weights(3)}
    x = weights(5, 4, seed=3)
    if attributes.get("transB"):
        values["w"] = values["w"].T.copy()
    if attributes.get("transA"):
        x = x.T.copy()
    found = contrib("FusedGemm", f"x w {bias}".strip(), values, {"x": x}, **attributes)
    layer = found.layers["n"]
    assert (layer.kind, layer.weight, layer.bias) == ("Gemm", "w", bias or None)


@st.composite
def products(draw):
    rank = draw(st.integers(2, 4))
    sizes = draw(st.tuples(*[st.integers(1, 3)] * 3))
    batch = draw(st.tuples(*[st.integers(1, 2)] * (rank - 2)))
    flags = {f"trans{side}": draw(st.integers(0, 1)) for side in "AB"}
    if rank > 2:
        flags |= {f"transBatch{side}": draw(st.integers(0, 1)) for side in "AB"}
    return sizes, batch, flags, draw(st.sampled_from([1.0, 0.5])), draw(st.integers(0, 1))


@settings(max_examples=60, deadline=None)
@given(products())
def test_fused_matmul(case):
    (rows, inner, columns), batch, flags, alpha, weight_at = case
    shapes = []
    for letter, sizes in zip("AB", ((rows, inner), (inner, columns)), strict=True):
        first, last = sizes[::-1] if flags[f"trans{letter}"] else sizes
        of_batch = flags.get(f"transBatch{letter}")
        shapes.append((first, *batch, last) if of_batch else (*batch, first, last))
    weight, x = weights(*shapes[weight_at]), weights(*shapes[1 - weight_at], seed=1)
    names = "w x" if weight_at == 0 else "x w"
    found = contrib("FusedMatMul", names, {"w": weight}, {"x": x}, alpha=alpha, **flags)
    layer = found.layers["n"]
    assert (layer.op_type, layer.kind) == ("com.microsoft.FusedMatMul", "MatMul")
    assert layer.view.size == weight.size


def test_fused_matmul_of_a_plain_weight_and_a_batch():
    for flags in ({}, {"transA": 1}, {"transB": 1}):
        shape = (2, 4, 5) if flags.get("transA") else (2, 5, 4)
        weight = weights(3, 4) if flags.get("transB") else weights(4, 3)
        found = contrib("FusedMatMul", "x w", {"w": weight}, {"x": weights(*shape)}, **flags)
        assert found.layers["n"].view.matrix == (1, 3, 4)


@pytest.mark.parametrize("op_type", ["FusedConv", "FusedGemm", "FusedMatMul"])
def test_no_constant(op_type):
    node = helper.make_node(op_type, ["x", "w"], ["y"], domain="com.microsoft")
    inputs = {"x": [2, 3, 4], "w": [2, 3, 4]}
    found = find_layers(
        lower(Model.load(make_model([node], {}, inputs, domains=["com.microsoft"])))
    )
    assert (found.layers, found.skipped) == ((), ())
