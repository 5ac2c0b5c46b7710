"""The weight matrix is a view, and the way back is exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import make_model, weights

from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.views import MatrixView


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
