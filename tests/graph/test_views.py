"""The weight matrix is a view, and the way back is exact."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import make_model, weights

from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.views import MatrixView, contiguous


@given(st.permutations(range(4)), st.tuples(*[st.integers(1, 3)] * 4))
def test_round_trip(order, stored):
    permuted = [stored[axis] for axis in order]
    matrix = (permuted[0], permuted[1], permuted[2] * permuted[3])
    view = MatrixView(stored, tuple(order), matrix)
    tensor = np.arange(view.size).reshape(stored)
    seen = view.to_matrix(tensor)
    assert seen.shape == matrix
    back = view.to_stored(seen)
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, tensor)


CASES = {
    "Conv": ("Conv", (6, 2, 3, 5), {}, (1, 6, 30), lambda w: w.reshape(1, 6, 30)),
    "Conv of groups": ("Conv", (6, 2, 3), {"group": 3}, (3, 2, 6), lambda w: w.reshape(3, 2, 6)),
    "ConvTranspose": (
        *("ConvTranspose", (4, 2, 3), {"group": 2}, (2, 2, 6)),
        lambda w: w.reshape(2, 2, 2, 3).swapaxes(1, 2).reshape(2, 2, 6),
    ),
    "Gemm": ("Gemm", (4, 7), {}, (1, 7, 4), lambda w: w.T[None]),
    "Gemm transB": ("Gemm", (7, 4), {"transB": 1}, (1, 7, 4), lambda w: w[None]),
    "MatMul": ("MatMul", (4, 7), {}, (1, 7, 4), lambda w: w.T[None]),
    "MatMul batched": ("MatMul", (3, 4, 7), {}, (3, 7, 4), lambda w: w.swapaxes(1, 2)),
    "MatMul vector": ("MatMul", (4,), {}, (1, 1, 4), lambda w: w.reshape(1, 1, 4)),
}


@pytest.mark.parametrize(
    ("op_type", "shape", "attributes", "matrix", "expected"), CASES.values(), ids=CASES
)
def test_neurons_are_rows(op_type, shape, attributes, matrix, expected):
    weight = weights(*shape)
    model = lower(Model(make_model([(op_type, "x w", "y", attributes)], {"w": weight})))
    (layer,) = find_layers(model).layers
    assert layer.view.matrix == matrix
    np.testing.assert_array_equal(layer.view.to_matrix(weight), expected(weight))
    assert layer.view.size == weight.size


@pytest.mark.parametrize(
    ("op_type", "attributes", "expected"),
    [
        ("Gemm", {}, lambda w: w[None]),
        ("Gemm", {"transA": 1}, lambda w: w.T[None]),
        ("MatMul", {}, lambda w: w[None]),
    ],
)
def test_neurons_are_rows_with_the_weight_on_the_left(op_type, attributes, expected):
    weight = weights(5, 4)
    model = lower(Model(make_model([(op_type, "w x", "y", attributes)], {"w": weight})))
    (layer,) = find_layers(model).layers
    np.testing.assert_array_equal(layer.view.to_matrix(weight), expected(weight))


def test_no_single_axis_counts_the_neurons_of_a_parted_tensor():
    plain = MatrixView((6, 4), (1, 0), (1, 4, 6))
    assert plain.neuron_axis == 1
    assert MatrixView((6, 4), (0, 2, 1), (2, 4, 3), (2, 3, 4)).neuron_axis is None
    assert MatrixView((6, 4), (0, 2, 1), (1, 4, 6), (1, 6, 4)).neuron_axis is None


def test_neurons_are_cut_along_one_axis():
    for _, stored, _, matrix, expected in CASES.values():
        tensor = np.arange(np.prod(stored)).reshape(stored)
        views = [
            MatrixView(stored, order, matrix)
            for order in itertools.permutations(range(len(stored)))
            if np.array_equal(MatrixView(stored, order, matrix).to_matrix(tensor), expected(tensor))
        ]
        for view in views:
            axis = view.neuron_axis
            if axis is None:
                assert matrix[0] > 1 or matrix[1] == 1
                continue
            rows = slice(1, 3)
            part = np.take(tensor, range(1, 3), axis)
            found = view.of_neurons(rows)
            np.testing.assert_array_equal(found.to_matrix(part), expected(tensor)[:, rows])
            np.testing.assert_array_equal(found.to_stored(found.to_matrix(part)), part)


@pytest.mark.parametrize("shape", [(3,), (0, 4), (5, 7), (600, 520), (3, 270, 515)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.bool_])
def test_a_contiguous_copy_holds_the_same(shape, dtype):
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for seen in (values, values.T, values[..., ::2]):
        copy = contiguous(seen, dtype)
        assert copy.dtype == dtype
        assert copy.flags.c_contiguous
        assert not np.shares_memory(copy, values)
        np.testing.assert_array_equal(copy, seen.astype(dtype))
