"""A weight that comes to its node by a route is pruned and refitted like one that does not."""

from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from small_models import constant, make_model, sites_that_may_change, weights, without_payloads

import onnx_sipp
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model

W, V = weights(4, 6, seed=1), weights(6, 3, seed=2)
B, C = weights(6, seed=3), weights(3, seed=4)
RNG = np.random.default_rng(0)
DATA = (RNG.standard_normal((40, 3)) @ RNG.standard_normal((3, 4))).astype(np.float32)
DATA += weights(40, 4, seed=5) * np.float32(0.2)
IMAGES = weights(12, 2, 5, 5, seed=6)
# What routes need beside weights: shapes and places.
PLACES = {
    "i0": [0], "i1": [1], "i2": [2], "i3": [3], "i4": [4], "i6": [6], "i7": [7], "i_1": [-1],
    "i_9": [-9], "shape": [4, 6], "backwards": [3, 2, 1, 0], "halves": [2, 4],
}  # fmt: skip
MLP = [("MatMul", "x t", "h"), ("Add", "h b", "s"), ("Relu", "s", "r"), ("Gemm", "r v c", "y")]


def model_of(route, stored, nodes=MLP, **options):
    """The network of `MLP` whose constants are stored as they are, or made by some nodes."""
    made = {name for node in route for name in make_model([node], {}).graph.node[0].output}
    constants = {name: np.array(value) for name, value in PLACES.items()}
    constants |= {"t": W, "b": B, "v": V, "c": C} | stored
    return make_model(
        [*route, *nodes], {n: v for n, v in constants.items() if n not in made}, **options
    )


def by_default(proto, data=DATA, **options):
    return onnx_sipp.prune(proto, data, sparsity=0.5, threads=1, **options)


def constants_of(proto):
    """Every constant as the nodes see it."""
    model = lower(Model.load(proto))
    return {name: model.plan.tracer.evaluator.value(name) for name in "tbvc"}


@cache
def plain():
    """What becomes of the constants if they are stored as they are used."""
    return constants_of(by_default(model_of([], {})).model)


def check_only_weights_changed(before, result):
    lowered = lower(Model.load(before))
    sites = sites_that_may_change(lowered, find_layers(lowered).layers, result.report)
    protos = [onnx.ModelProto.FromString(p.SerializeToString()) for p in (before, result.model)]
    for proto in protos:
        without_payloads(proto, sites)
    assert protos[0] == protos[1]


def concat(inputs, output, axis):
    return helper.make_node("Concat", inputs.split(), [output], axis=axis)


# By name: what makes t, and what is stored.
WIDE = np.concatenate([weights(4, 1), W, weights(4, 2)], 1)
ROUTES = {
    "Slice": ([("Slice", "w i1 i7 i1", "t")], {"w": WIDE}),
    "Slice backwards": ([("Slice", "w i3 i_9 i0 i_1", "t")], {"w": W[::-1].copy()}),
    "Slice, Concat": (
        [
            ("Slice", "w i0 i2 i0", "k"),
            ("Slice", "w i2 i4 i0", "l"),
            concat("l k", "t", 0),
        ],
        {"w": np.concatenate([W[2:], W[:2]])},
    ),
    "Concat of two": (
        [concat("k l", "t", 1)],
        {"k": W[:, :2].copy(), "l": W[:, 2:].copy()},
    ),
    "Unsqueeze, Squeeze": ([("Unsqueeze", "w i0", "k"), ("Squeeze", "k i0", "t")], {"w": W}),
    "Reshape": ([("Reshape", "w shape", "t")], {"w": W.ravel()}),
    "Transpose": ([("Transpose", "w", "t")], {"w": W.T.copy()}),
    "Identity": ([("Identity", "w", "t")], {"w": W}),
    "Split": (
        [("Split", "w halves", "k t", {"axis": 0})],
        {"w": np.concatenate([weights(2, 6), W])},
    ),
    "Gather": ([("Gather", "w backwards", "t")], {"w": W[::-1].copy()}),
    "GatherElements": (
        [("GatherElements", "w at", "t", {"axis": 1})],
        {"w": W[:, ::-1].copy(), "at": np.tile(np.arange(5, -1, -1), (4, 1))},
    ),
    "GatherND": (
        [("GatherND", "w at", "t")],
        {"w": W[::-1].copy(), "at": np.array([[3], [2], [1], [0]])},
    ),
    "Flatten": ([("Flatten", "w", "t")], {"w": W.reshape(4, 2, 3)}),
    "SpaceToDepth": (
        [
            ("DepthToSpace", "w", "k", {"blocksize": 2}),
            ("SpaceToDepth", "k", "l", {"blocksize": 2}),
            ("Reshape", "l shape", "t"),
        ],
        {"w": W.reshape(1, 4, 3, 2)},
    ),
    "Dropout": ([("Dropout", "w", "t")], {"w": W}),
    "Where": (
        [("Where", "which k l", "t")],
        {"k": np.where(W > 0, W, 9), "l": np.where(W > 0, 9, W), "which": W > 0},
    ),
    "Compress": (
        [("Compress", "w which", "t", {"axis": 0})],
        {"w": np.repeat(W, 2, 0), "which": np.array([True, False] * 4)},
    ),
    "Cast of float64": (
        [("Cast", "w", "t", {"to": TensorProto.FLOAT})],
        {"w": W.astype(np.float64)},
    ),
    "a computed shape": (
        [
            ("Shape", "x6", "n"),
            concat("i4 n", "k", 0),
            ("Reshape", "w k", "t"),
        ],
        {"w": W.ravel(), "x6": weights(6)},
    ),
    "Constant node": ([constant("w", W.T), ("Transpose", "w", "t")], {}),
    "value_floats": (
        [
            helper.make_node("Constant", [], ["w"], value_floats=W.ravel().tolist()),
            ("Reshape", "w shape", "t"),
        ],
        {},
    ),
}


@pytest.mark.parametrize("name", ROUTES)
def test_a_route_changes_nothing(name):
    proto = model_of(*ROUTES[name])
    result = by_default(proto)
    found = constants_of(result.model)
    for key, value in plain().items():
        np.testing.assert_allclose(found[key], value, atol=1e-5)
    assert (
        result.report.zeros
        == np.count_nonzero(found["t"] == 0) + np.count_nonzero(found["v"] == 0)
        == (W.size + V.size) // 2
    )
    check_only_weights_changed(proto, result)


BIASES = {
    "Squeeze": ([("Squeeze", "w i0", "b")], {"w": B[None]}),
    "Slice of its own part": (
        [("Slice", "w i0 i6 i0", "b"), ("Slice", "w i6 end i0", "c")],
        {"w": np.concatenate([B, C]), "end": np.array([9])},
    ),
    "value_floats": ([helper.make_node("Constant", [], ["b"], value_floats=B.tolist())], {}),
}


@pytest.mark.parametrize("name", BIASES)
def test_a_bias_may_come_by_a_route_too(name):
    proto = model_of(*BIASES[name])
    result = by_default(proto)
    found = constants_of(result.model)
    for key, value in plain().items():
        np.testing.assert_allclose(found[key], value, atol=1e-5)
    assert not np.allclose(found["b"], B)
    check_only_weights_changed(proto, result)


def test_a_bias_that_is_read_by_another_route_stays():
    route = [
        ("Slice", "w i0 i6 i0", "b"),
        ("Slice", "w i3 end i0", "k"),
        ("Slice", "k i3 i6 i0", "c"),
    ]
    proto = model_of(route, {"w": np.concatenate([B, C]), "end": np.array([9])})
    result = by_default(proto)
    assert [row.bias for row in result.report.layers] == ["w", "w"]
    route[-1] = ("Slice", "k i0 i3 i0", "c")  # half of it is part of b
    proto = model_of(route, {"w": np.concatenate([B, C]), "end": np.array([9])})
    result = by_default(proto)
    assert [row.bias for row in result.report.layers] == ["", ""]


# --- Conv, BatchNormalization ---------------------------------------------------------------------

KERNEL, NORM = weights(3, 2, 3, 3, seed=7), {n: weights(3, seed=s) for s, n in enumerate("gms")}
CONV = [("Conv", "x k b", "h"), ("BatchNormalization", "h g s m v", "y")]


def test_conv_and_normalization():
    stored = {"k": KERNEL, "b": C, "v": np.abs(weights(3)) + 1, **NORM}
    inputs = {"x": ["n", 2, 5, 5]}
    direct = by_default(make_model(CONV, stored, inputs), IMAGES).model
    route = [
        ("Reshape", "kernel shape", "k4"),
        ("Transpose", "k4", "k", {"perm": [0, 3, 1, 2]}),
        ("Squeeze", "bias i0", "b"),
        ("Cast", "shift", "s", {"to": TensorProto.FLOAT}),
    ]
    routed = {
        "kernel": KERNEL.transpose(0, 2, 3, 1).reshape(9, 6),
        "shape": np.array([3, 3, 3, 2]),
        "bias": C[None],
        "i0": np.array([0]),
        "shift": NORM["s"].astype(np.float64),
    }
    others = {name: stored[name] for name in "gmv"}
    proto = make_model([*route, *CONV], {**routed, **others}, inputs)
    result = by_default(proto, IMAGES)
    assert [row.bias for row in result.report.layers] == ["bias"]
    before, after = lower(Model.load(direct)), lower(Model.load(result.model))
    for name in "kbs":
        np.testing.assert_allclose(
            after.plan.tracer.evaluator.value(name),
            before.plan.tracer.evaluator.value(name),
            atol=1e-5,
        )
    check_only_weights_changed(proto, result)


# --- what is refused ------------------------------------------------------------------------------

REFUSED = {
    "Expand": ([("Expand", "w shape", "t")], {"w": W[:1]}, "a stored element more than once"),
    "Tile": ([("Tile", "w times", "t")], {"w": W[:2], "times": np.array([2, 1])}, "more than once"),
    "Gather twice": (
        [("Gather", "w at", "t")],
        {"w": W, "at": np.array([0, 1, 1, 2])},
        "more than once",
    ),
    "Pad": (
        [("Pad", "w pads", "t")],
        {"w": W[:3], "pads": np.array([0, 0, 1, 0])},
        "has elements that are not stored",
    ),
    "Trilu": ([("Trilu", "w", "t")], {"w": W}, "has elements that are not stored"),
    "Mul": ([("Mul", "w two", "t")], {"w": W, "two": np.float32(2)}, "Mul calculates"),
    "custom": (
        [helper.make_node("Turn", ["w"], ["t"], domain="my")],
        {"w": W},
        "Turn calculates",
    ),
    "Cast of integers": (
        [("Cast", "w", "t", {"to": TensorProto.FLOAT})],
        {"w": np.ones((4, 6), np.int64)},
        "Cast from int64 to float32",
    ),
    "broken Reshape": ([("Reshape", "w shape", "t")], {"w": W[:2]}, "Reshape cannot be evaluated"),
    "training": (
        [("Dropout", "w half yes", "t")],
        {"w": W, "half": np.float32(0.5), "yes": np.array(True)},
        "Dropout calculates",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_route_that_calculates_is_refused(name):
    route, stored, reason = REFUSED[name]
    found = find_layers(lower(Model.load(model_of(route, stored, domains=["my"]))))
    assert [layer.op_type for layer in found.layers] == ["Gemm"]
    (why,) = (skip.reason for skip in found.skipped if skip.op_type == "MatMul")
    assert why.startswith("its weight 't'")
    assert reason in why


def test_what_is_refused_stays_and_the_rest_is_pruned():
    route, stored, _ = REFUSED["Mul"]
    result = by_default(model_of(route, stored))
    assert result.report.zeros == V.size // 2
    np.testing.assert_array_equal(constants_of(result.model)["t"], 2 * W)


# --- storage --------------------------------------------------------------------------------------

FLOATS = {
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "double": TensorProto.DOUBLE,
    "float": TensorProto.FLOAT,
}


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("raw", [True, False])
def test_storage_is_rounded_to_its_type(name, raw):
    """A refit in float32, stored in another type in its own field."""
    dtype = helper.tensor_dtype_to_np_dtype(FLOATS[name])
    values = W.astype(dtype)
    if raw:
        stored = onnx.numpy_helper.from_array(values)
    else:
        stored = helper.make_tensor("w", FLOATS[name], W.shape, values.astype(np.float64).ravel())
    proto = model_of([("Cast", "w", "t", {"to": TensorProto.FLOAT})], {"w": stored})
    exact = model_of([], {"t": values.astype(np.float32)})
    result, expected = by_default(proto), constants_of(by_default(exact).model)
    found = constants_of(result.model)
    precision = {"float16": 2**-11, "bfloat16": 2**-8}.get(name, 1e-6)
    np.testing.assert_allclose(found["t"], expected["t"], rtol=precision, atol=1e-5)
    assert np.count_nonzero(found["t"] == 0) == np.count_nonzero(expected["t"] == 0)
    check_only_weights_changed(proto, result)


@pytest.mark.parametrize("name", ["float16", "double"])
def test_a_whole_model_of_another_type(name):
    dtype = helper.tensor_dtype_to_np_dtype(FLOATS[name])
    values = {
        "w": W.T.astype(dtype),
        "b": B.astype(dtype),
        "v": V.astype(dtype),
        "c": C.astype(dtype),
    }
    proto = model_of([("Transpose", "w", "t")], values)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = FLOATS[name]
    result = by_default(proto, DATA.astype(dtype))
    found = constants_of(result.model)
    tolerance = 0.02 if name == "float16" else 1e-5
    for key, value in plain().items():
        assert found[key].dtype == dtype
        np.testing.assert_allclose(found[key], value, atol=tolerance)
    check_only_weights_changed(proto, result)


def test_an_initializer_that_is_an_input_too():
    proto = model_of([("Transpose", "w", "t")], {"w": W.T}, inputs={"x": ["n", 4], "w": [6, 4]})
    result = by_default(proto)
    np.testing.assert_allclose(constants_of(result.model)["t"], plain()["t"], atol=1e-5)
    check_only_weights_changed(proto, result)


def test_attributes_of_old_operators():
    """Slice, Unsqueeze and Squeeze had attributes where they have inputs now."""
    route = [
        ("Slice", "w", "k", {"axes": [1], "starts": [1], "ends": [7]}),
        ("Unsqueeze", "k", "l", {"axes": [0]}),
        ("Squeeze", "l", "t", {"axes": [0]}),
    ]
    proto = model_of(route, {"w": WIDE}, opset=9)
    result = by_default(proto)
    np.testing.assert_allclose(constants_of(result.model)["t"], plain()["t"], atol=1e-5)


def test_nodes_in_any_order():
    route, stored = ROUTES["Slice, Concat"]
    proto = model_of(route, stored)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    result = by_default(proto)
    np.testing.assert_allclose(constants_of(result.model)["t"], plain()["t"], atol=1e-5)
    ort.InferenceSession(result.model.SerializeToString(), providers=["CPUExecutionProvider"])
