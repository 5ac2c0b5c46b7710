"""Weights behind DequantizeLinear: refitted in real values, zeros stored as the zero point."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import make_model, sites_that_may_change, weights, without_payloads

import onnx_sipp
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model

RNG = np.random.default_rng(0)
DATA = (RNG.standard_normal((40, 3)) @ RNG.standard_normal((3, 8))).astype(np.float32)
DATA += weights(40, 8, seed=5) * np.float32(0.2)
W = weights(8, 6, seed=1)
# One budget and one candidate: the masks depend on the weights and the data only.
FAST = {"allocation": "neuron", "candidates": ("activation",), "threads": 1, "sparsity": 0.5}
TYPES = ["int8", "uint8", "int4", "uint4", "int16", "uint16"]


def numpy_type(name):
    return np.dtype(getattr(ml_dtypes, name) if name.endswith("4") else name)


def quantized(values, scale, zero_point, dtype):
    """Levels of real values; scale and zero point broadcast."""
    info = ml_dtypes.iinfo(numpy_type(dtype))
    levels = np.clip(np.rint(values / scale) + zero_point, info.min, info.max)
    return levels.astype(np.int32)


def stored(levels, dtype, *, raw=True):
    """Levels as a TensorProto, in raw_data or in the typed field."""
    array = np.asarray(levels, np.int32).astype(numpy_type(dtype))
    if raw:
        return numpy_helper.from_array(array)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor("", kind, array.shape, array.astype(np.int32).ravel())


def parameters(dtype, shape):
    """A scale and zero point in which W fits, in a shape that broadcasts to W's."""
    info = ml_dtypes.iinfo(numpy_type(dtype))
    scale = np.broadcast_to(np.abs(W).max() / ((int(info.max) - int(info.min)) / 2.2), shape)
    scale = scale * (1 + np.arange(np.prod(shape)).reshape(shape) / 40)
    middle = 0 if dtype.startswith("int") else (int(info.max) + 1) // 2
    zero = np.full(shape, middle, np.int32)
    return scale.astype(np.float32), zero


GRANULARITIES = {
    "per tensor": ((), {}),
    "per channel": ((1, 6), {"axis": 1}),
    "per row": ((8, 1), {"axis": -2}),
    "blocks": ((4, 6), {"axis": 0, "block_size": 2}),
}


def case(dtype, granularity, *, raw=True, with_zero=True):
    """A model of one layer, its real weight, and the scale of each element."""
    shape, attributes = GRANULARITIES[granularity]
    scale, zero = parameters(dtype, shape)
    if not with_zero:
        zero = np.zeros_like(zero)
    full = [np.repeat(v, 2, 0) if granularity == "blocks" else v for v in (scale, zero)]
    levels = quantized(W, *full, dtype)
    names = "q scale zero" if with_zero else "q scale"
    flat = (scale, zero) if granularity == "blocks" else (scale.reshape(-1), zero.reshape(-1))
    if granularity == "per tensor":
        flat = (scale, zero)
    constants = {"q": stored(levels, dtype, raw=raw), "scale": flat[0], "b": weights(6, seed=2)}
    if with_zero:
        constants["zero"] = stored(flat[1], dtype)
    nodes = [("DequantizeLinear", names, "w", attributes), ("Gemm", "x w b", "y")]
    proto = make_model(nodes, constants, {"x": ["n", 8]}, opset=21)
    real = ((levels - full[1]).astype(np.float32) * full[0]).astype(np.float32)
    return proto, real, np.broadcast_to(full[0], W.shape), np.broadcast_to(full[1], W.shape)


def prune(proto, **options):
    return onnx_sipp.prune(proto, DATA, **{**FAST, **options})


def levels_of(proto, name="q"):
    (tensor,) = (t for t in proto.graph.initializer if t.name == name)
    return numpy_helper.to_array(tensor).astype(np.int32)


def weight_of(proto):
    model = lower(Model.load(proto))
    (layer,) = find_layers(model).layers
    return model.read(layer.weight)


def check_only_weights_changed(before, result):
    lowered = lower(Model.load(before))
    sites = sites_that_may_change(lowered, find_layers(lowered).layers, result.report)
    protos = [onnx.ModelProto.FromString(p.SerializeToString()) for p in (before, result.model)]
    for proto in protos:
        without_payloads(proto, sites)
    assert protos[0] == protos[1]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_like_the_equivalent_float_model_but_for_rounding(dtype, granularity):
    proto, real, scale, zero = case(dtype, granularity)
    np.testing.assert_array_equal(weight_of(proto), real)
    result = prune(proto)
    bias = weights(6, seed=2)
    direct = prune(make_model([("Gemm", "x w b", "y")], {"w": real, "b": bias}, {"x": ["n", 8]}))
    expected = numpy_helper.to_array(direct.model.graph.initializer[0])
    found, levels = weight_of(result.model), levels_of(result.model)
    already = int((real == 0).sum())
    zeros = max(24, already)
    assert result.report.zeros == int((levels == zero).sum()) == int((found == 0).sum()) == zeros
    if already == 0:
        np.testing.assert_array_equal(found == 0, expected == 0)
    info = ml_dtypes.iinfo(numpy_type(dtype))
    low, high = ((int(edge) - zero) * scale for edge in (info.min, info.max))
    reachable = np.clip(expected, low, high)
    np.testing.assert_array_less(np.abs(found - reachable), scale * 1.0001)
    usual = (np.abs(reachable) > scale / 2) | (reachable == 0)
    assert np.all((np.abs(found - reachable) <= scale * 0.5001)[usual])
    check_only_weights_changed(proto, result)


@pytest.mark.parametrize("dtype", TYPES)
def test_typed_fields(dtype):
    proto, *_ = case(dtype, "per channel", raw=False)
    assert not proto.graph.initializer[0].HasField("raw_data")
    result = prune(proto)
    assert not result.model.graph.initializer[0].HasField("raw_data")
    in_raw = prune(case(dtype, "per channel")[0])
    np.testing.assert_array_equal(levels_of(result.model), levels_of(in_raw.model))
    check_only_weights_changed(proto, result)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_without_a_zero_point(dtype):
    """Unsigned levels without a zero point can be no negative weights; the sign gives way."""
    proto, real, *_ = case(dtype, "per tensor", with_zero=False)
    result = prune(proto)
    levels = levels_of(result.model)
    already = int((real == 0).sum())
    assert result.report.zeros == int((levels == 0).sum()) == max(24, already)
    assert "zero" not in {t.name for t in result.model.graph.initializer}


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_external_data(tmp_path, dtype):
    proto = case(dtype, "per channel")[0]
    inside = levels_of(prune(proto).model)
    onnx.save(
        proto, tmp_path / "in.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    prune(tmp_path / "in.onnx").save(tmp_path / "out.onnx")
    np.testing.assert_array_equal(levels_of(onnx.load(tmp_path / "out.onnx")), inside)


def test_routes_before_and_after():
    """DequantizeLinear of a re-arranged tensor, re-arranged again."""
    direct, real, scale, _ = case("int8", "per channel")
    levels = levels_of(direct)
    nodes = [
        ("Transpose", "q", "k"),
        ("DequantizeLinear", "k scale zero", "l", {"axis": 1}),
        ("Unsqueeze", "l i0", "m"),
        ("Squeeze", "m i0", "w"),
        ("Gemm", "x w b", "y"),
    ]
    constants = {
        "q": levels.T.astype(np.int8),
        "scale": scale[0].copy(),
        "zero": np.zeros(6, np.int8),
        "b": weights(6, seed=2),
        "i0": np.array([0]),
    }
    proto = make_model(nodes, constants, {"x": ["n", 8]})
    np.testing.assert_array_equal(weight_of(proto), real)
    (layer,) = onnx_sipp.inspect(proto).layers
    assert layer.route == "initializer via Transpose, DequantizeLinear, Unsqueeze, Squeeze"
    result = prune(proto)
    np.testing.assert_array_equal(levels_of(result.model).T, levels_of(prune(direct).model))
    check_only_weights_changed(proto, result)


def test_a_bias_of_int32_is_refitted():
    """As onnxruntime quantises: int32 levels with the scale of the input times the weight's."""
    bias = np.array([100, -200, 300, 5, -70, 900])
    nodes = [
        ("DequantizeLinear", "q scale zero", "w", {"axis": 1}),
        ("DequantizeLinear", "p fine", "b", {"axis": 0}),
        ("Gemm", "x w b", "y"),
    ]
    _, real, scale, _ = case("int8", "per channel")
    fine = (scale[0] / 100).astype(np.float32)
    direct = case("int8", "per channel")[0]
    constants = {
        "q": levels_of(direct).astype(np.int8),
        "scale": scale[0].copy(),
        "zero": np.zeros(6, np.int8),
        "p": bias.astype(np.int32),
        "fine": fine,
    }
    proto = make_model(nodes, constants, {"x": ["n", 8]})
    result = prune(proto)
    assert [row.bias for row in result.report.layers] == ["p"]
    plain = {"w": real, "b": (bias * fine).astype(np.float32)}
    expected = prune(make_model([("Gemm", "x w b", "y")], plain, {"x": ["n", 8]})).model
    shifted = numpy_helper.to_array(expected.graph.initializer[1])
    np.testing.assert_array_less(
        np.abs(levels_of(result.model, "p") * fine - shifted), fine * 0.5001
    )
    check_only_weights_changed(proto, result)


# --- real values that the graph itself quantises ------------------------------------------------


def pair(weight, scale, zero, dtype="int8", **attributes):
    """Training with quantisation leaves QuantizeLinear and DequantizeLinear behind real weights."""
    nodes = [
        ("QuantizeLinear", "v scale zero", "q", attributes),
        ("DequantizeLinear", "q scale zero", "w", attributes),
        ("Gemm", "x w", "y"),
    ]
    constants = {"v": weight, "scale": scale, "zero": stored(zero, dtype)}
    return make_model(nodes, constants, {"x": ["n", 8]}, opset=21)


@pytest.mark.parametrize(("dtype", "middle"), [("int8", 0), ("uint8", 120)])
def test_a_pair_is_a_grid_for_real_values(dtype, middle):
    scale = (np.abs(W).max(axis=0) / 100).astype(np.float32)
    zero = np.full(6, middle)
    proto = pair(W, scale, zero, dtype, axis=1)
    real = (quantized(W, scale, zero, dtype) - zero).astype(np.float32) * scale
    np.testing.assert_array_equal(weight_of(proto), real)
    result = prune(proto)
    (after,) = (numpy_helper.to_array(t) for t in result.model.graph.initializer if t.name == "v")
    found = weight_of(result.model)
    # What is not zero for the layer is not zero in the file, and the other way round.
    np.testing.assert_array_equal(after == 0, found == 0)
    assert result.report.zeros == int((after == 0).sum()) == 24
    plain = make_model([("Gemm", "x w", "y")], {"w": real}, {"x": ["n", 8]})
    direct = prune(plain, new_biases=False)
    expected = numpy_helper.to_array(direct.model.graph.initializer[0])
    info = np.iinfo(dtype)
    reachable = np.clip(expected, (info.min - middle) * scale, (info.max - middle) * scale)
    assert np.all(np.abs(found - reachable) < scale * 1.0001)
    check_only_weights_changed(proto, result)


def test_weights_that_stay_keep_every_bit():
    scale = np.float32(np.abs(W).max() / 100)
    proto = pair(W, scale, np.zeros(()))
    result = prune(proto, method="magnitude", allocation="global", candidates=())
    (after,) = (numpy_helper.to_array(t) for t in result.model.graph.initializer if t.name == "v")
    np.testing.assert_array_equal(after[after != 0], W[after != 0])


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (
            [
                ("QuantizeLinear", "v scale zero", "q"),
                ("DequantizeLinear", "q other zero", "w"),
            ],
            "undoes another quantisation",
        ),
        (
            [
                ("DequantizeLinear", "i scale zero", "k"),
                ("QuantizeLinear", "k scale zero", "q"),
                ("DequantizeLinear", "q scale zero", "w"),
            ],
            "quantised twice",
        ),
        (
            [
                ("DequantizeLinear", "i scale zero", "k"),
                helper.make_node("Concat", ["k", "v2"], ["w"], axis=0),
            ],
            "mixes constants that are stored in different ways",
        ),
        ([("DequantizeLinear", "i scales zero", "w", {"axis": 0})], "do not fit its shape"),
    ],
)
def test_what_is_refused(nodes, reason):
    constants = {
        "v": W,
        "v2": W[:4],
        "i": quantized(W, 0.1, 0, "int8")[: 4 if "Concat" in str(nodes) else 8].astype(np.int8),
        "scale": np.float32(0.1),
        "scales": np.full(3, 0.1, np.float32),
        "other": np.float32(0.2),
        "zero": np.int8(0),
    }
    found = find_layers(lower(Model.load(make_model([*nodes, ("Gemm", "x w", "y")], constants))))
    assert not found.layers
    (why,) = (skip.reason for skip in found.skipped if skip.op_type == "Gemm")
    assert reason in why


def test_integers_without_a_scale_are_refused():
    proto = make_model([("MatMul", "x w", "y")], {"w": np.ones((8, 6), np.int8)})
    ((skip),) = find_layers(lower(Model.load(proto))).skipped
    assert "is not floating point" in skip.reason


def test_the_type_of_the_scale_is_that_of_the_weight():
    scale = np.float16(0.05)
    nodes = [("DequantizeLinear", "q scale", "w"), ("MatMul", "x w", "y")]
    levels = quantized(W, 0.05, 0, "int8").astype(np.int8)
    proto = make_model(nodes, {"q": levels, "scale": scale}, {"x": ["n", 8]}, opset=21)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    assert weight_of(proto).dtype == np.float16
    result = onnx_sipp.prune(proto, DATA.astype(np.float16), **FAST)
    assert int((levels_of(result.model) == 0).sum()) == 24
