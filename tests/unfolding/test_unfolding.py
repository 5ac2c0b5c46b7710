"""Patches times weight matrix is what onnxruntime computes, for every form of every layer."""

from math import prod

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.unfolding.base import MatMulUnfolding, pieces
from onnx_sipp.unfolding.conv import ConvUnfolding

FLOAT = TensorProto.FLOAT


def single(op_type, activation, weight, weight_at=1, **attributes):
    """A model of one node, its layer, and what onnxruntime makes of the activation."""
    names = ["w", "x"] if weight_at == 0 else ["x", "w"]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(op_type, names, ["y"], name="node", **attributes)],
            "graph",
            [helper.make_tensor_value_info("x", FLOAT, activation.shape)],
            [helper.make_tensor_value_info("y", FLOAT, None)],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (layer,) = find_layers(lower(Model(model))).layers
    return layer, session.run(None, {"x": activation})[0]


def outputs_of(layer, weight, columns):
    """``[group, out, patches]``."""
    return layer.scale * layer.view.to_matrix(weight) @ columns


def random(rng, *shape):
    return rng.standard_normal(shape, np.float32)


@st.composite
def convolutions(draw):
    axes = draw(st.integers(1, 3))
    per_axis = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * axes))  # noqa: E731
    groups = draw(st.integers(1, 3))
    auto_pad = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    kernel, strides = per_axis(1, 3), per_axis(1, 3)
    # onnxruntime refuses dilations with SAME_*
    dilations = per_axis(1, 1 if auto_pad.startswith("SAME") else 2)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    extra = per_axis(0, 4)
    attributes = {"strides": strides, "dilations": dilations, "group": groups}
    if auto_pad == "NOTSET":
        attributes["pads"] = draw(st.tuples(*[st.integers(0, 2)] * (2 * axes)))
    if auto_pad != "NOTSET" or draw(st.booleans()):
        attributes["auto_pad"] = auto_pad
    shape = (groups * draw(st.integers(1, 2)), draw(st.integers(1, 2)), *kernel)
    spatial = [r + e for r, e in zip(reach, extra, strict=True)]
    batch = draw(st.integers(1, 2))
    return attributes, shape, (batch, shape[1] * groups, *spatial), draw(st.integers(0, 99))


@settings(max_examples=150, deadline=None)
@given(convolutions())
def test_conv(case):
    attributes, shape, of_feed, seed = case
    rng = np.random.default_rng(seed)
    weight, samples = random(rng, *shape), 2
    activation = random(rng, samples, *of_feed)
    joined = activation.reshape(-1, *of_feed[1:])
    layer, expected = single("Conv", joined, weight, **attributes)
    unfolding = layer.unfolding

    columns = unfolding.unfold(activation)
    assert columns.dtype == np.float32
    assert unfolding.patch_bytes(of_feed) * samples == columns.nbytes
    z = outputs_of(layer, weight, columns)  # [group, out of group, image and place]
    z = z.reshape(-1, len(joined), *expected.shape[2:]).swapaxes(0, 1)
    np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-5)

    for limit in (1, unfolding.patch_bytes(of_feed) // 3, unfolding.patch_bytes(of_feed)):
        assert_same_pieces(unfolding, activation, max(1, limit))


def assert_same_pieces(unfolding, activation, limit):
    """Pieces hold each sample's patches, whatever the limit; their order within it is free."""
    whole = unfolding.unfold(activation)
    expected = whole.reshape(*whole.shape[:2], len(activation), -1)
    gathered = [[] for _ in activation]
    sample = 0
    for piece in pieces(unfolding, activation, limit):
        parts = piece.columns.reshape(*whole.shape[:2], piece.samples, -1)
        assert piece.samples == 1 or (piece.complete and piece.columns.nbytes <= limit)
        assert parts.shape[3] == piece.per_sample
        for index in range(piece.samples):
            gathered[sample + index].append(parts[:, :, index])
        sample += piece.samples if piece.complete else 0
    assert sample == len(activation)
    for index, parts in enumerate(gathered):
        found = np.concatenate(parts, axis=2)
        assert found.shape == expected[:, :, index].shape
        np.testing.assert_array_equal(in_order(found), in_order(expected[:, :, index]))


def in_order(columns):
    """The same columns, sorted."""
    flat = columns.reshape(-1, columns.shape[-1])
    return flat[:, np.lexsort(flat)]


def test_depthwise():
    rng = np.random.default_rng(0)
    activation, weight = random(rng, 2, 4, 6, 5), random(rng, 8, 1, 3, 3)
    layer, expected = single("Conv", activation, weight, group=4, pads=[1, 0, 0, 2])
    assert layer.view.matrix == (4, 2, 9)
    z = outputs_of(layer, weight, layer.unfolding.unfold(activation[:, None]))
    z = z.reshape(8, 2, *expected.shape[2:]).swapaxes(0, 1)
    np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1.0, 0.5, -2.0]),
    st.tuples(*[st.integers(1, 4)] * 3),
)
def test_gemm(weight_at, trans_a, trans_b, alpha, sizes):
    rng = np.random.default_rng(sum(sizes))
    rows, inner, columns = sizes
    left = (inner, rows) if trans_a else (rows, inner)
    right = (columns, inner) if trans_b else (inner, columns)
    weight = random(rng, *(right if weight_at == 1 else left))
    activation = random(rng, *(left if weight_at == 1 else right))
    layer, expected = single(
        "Gemm", activation, weight, weight_at, transA=trans_a, transB=trans_b, alpha=alpha
    )
    (z,) = outputs_of(layer, weight, layer.unfolding.unfold(activation[None]))
    np.testing.assert_allclose(z, expected.T if weight_at == 1 else expected, rtol=1e-4, atol=1e-5)
    assert_same_pieces(layer.unfolding, np.stack([activation, -activation]), 4)


MATMULS = {
    "vector times matrix": ((5,), (5, 3)),
    "matrix": ((4, 5), (5, 3)),
    "rank 3": ((2, 4, 5), (5, 3)),
    "rank 4": ((2, 3, 4, 5), (5, 3)),
    "times a vector": ((2, 4, 5), (5,)),
    "matrix times a vector": ((4, 5), (5,)),
    "vector times a vector": ((5,), (5,)),
    "batched constant": ((3, 4, 5), (3, 5, 2)),
    "batched constant, plain activation": ((4, 5), (3, 5, 2)),
    "batched constant, vector": ((5,), (3, 5, 2)),
    "constant broadcast": ((3, 4, 5), (1, 5, 2)),
    "constant broadcast over one axis": ((2, 3, 4, 5), (2, 1, 5, 2)),
    "activation broadcast over one axis": ((2, 1, 4, 5), (1, 3, 5, 2)),
    "both broadcast": ((2, 1, 4, 5), (1, 3, 5, 2)),
    "leading axes": ((6, 2, 3, 4, 5), (2, 3, 5, 2)),
    "shorter than the constant": ((3, 4, 5), (2, 3, 5, 2)),
    "all axes of one": ((1, 1, 1), (1, 1, 1)),
}


@pytest.mark.parametrize("weight_at", [0, 1])
@pytest.mark.parametrize(("of_activation", "of_weight"), MATMULS.values(), ids=MATMULS)
def test_matmul(of_activation, of_weight, weight_at):
    rng = np.random.default_rng(7)
    swap = lambda shape: (*shape[:-2], *shape[:-3:-1])  # noqa: E731
    if weight_at == 0:
        of_activation, of_weight = swap(of_activation), swap(of_weight)
    weight, activation = random(rng, *of_weight), random(rng, *of_activation)
    layer, expected = single("MatMul", activation, weight, weight_at)
    columns = layer.unfolding.unfold(activation[None])
    z = outputs_of(layer, weight, columns)
    # Which output an entry of z is, follows from the layer alone up to order; values tell.
    assert z.size == expected.size
    np.testing.assert_allclose(np.sort(z.ravel()), np.sort(expected.ravel()), rtol=1e-4, atol=1e-5)
    assert layer.unfolding.patch_bytes(activation.shape) == columns.nbytes
    several = np.stack([activation, 2 * activation, -activation])
    for limit in (4, columns.nbytes // 2, columns.nbytes):
        assert_same_pieces(layer.unfolding, several, max(1, limit))


def test_matmul_groups_meet_their_own_activations():
    """Each matrix of a batched constant sees the matching slice of the activation only."""
    rng = np.random.default_rng(3)
    activation, weight = random(rng, 2, 3, 4, 5), random(rng, 3, 5, 6)
    layer, expected = single("MatMul", activation, weight)
    z = outputs_of(layer, weight, layer.unfolding.unfold(activation[None]))
    assert z.shape == (3, 6, 8)
    by_group = expected.transpose(1, 3, 0, 2).reshape(3, 6, 8)
    np.testing.assert_allclose(z, by_group, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_become_float32(dtype):
    activation = np.ones((2, 1, 4, 5), dtype)
    for unfolding in (MatMulUnfolding(), ConvUnfolding((2,), (1,), (1,), ((0, 0),))):
        of_feed = activation[:, 0] if isinstance(unfolding, MatMulUnfolding) else activation
        assert unfolding.unfold(of_feed).dtype == np.float32


def test_memory_of_pieces_is_bounded():
    unfolding = ConvUnfolding((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)))
    activation = np.zeros((5, 1, 4, 32, 32), np.float32)
    limit = 40_000
    found = list(pieces(unfolding, activation, limit))
    rows = 4 * 9 * 32 * 4  # a part holds whole output rows
    assert max(piece.columns.nbytes for piece in found) <= limit + rows
    assert sum(prod(piece.columns.shape) for piece in found) == 5 * 4 * 9 * 32 * 32
