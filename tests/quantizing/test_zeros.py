"""Zeros are counted weight by weight, under the names that the file had."""

import numpy as np
import pytest
from small_models import make_model, weights

from onnx_sipp.quantizing.zeros import count_zeros, name_in_file, origin_of


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("w_quantized", "w"),
        ("w_Transposed_quantized", "w"),
        ("w_Transposed_2_quantized", "w"),
        ("v_Transposed_quantized", "v_Transposed"),
        ("w", ""),
        ("u_quantized", ""),
        ("w_scale", ""),
    ],
)
def test_origin(name, origin):
    assert origin_of(name, {"w", "v_Transposed", "v"}) == origin


def test_what_was_folded_into_a_weight_is_no_part_of_its_name():
    assert name_in_file("ConvBnFusion_W_c1") == "c1"
    assert name_in_file("ConvMulFusion_W_ConvBnFusion_W_c1") == "c1"
    assert name_in_file("ConvBnFusion_BN_B_b1") == "ConvBnFusion_BN_B_b1"


def test_counts():
    values = np.array([[0, 0, 1.0], [2, 0, 0.001]], np.float32)
    before = make_model(
        [("MatMul", "x w", "h"), ("MatMul", "h v", "y")],
        {"w": values.T, "v": weights(2, 5), "b": weights(3)},

    )  # fmt: skip
    after = make_model(
        [("MatMul", "x w", "h"), ("MatMul", "h v", "y")],
        {
            "v": weights(2, 5),
            "w_quantized": np.array([[0, 0, 64], [127, 0, 0]], np.int8).T,
            "w_scale": np.ones(2, np.float32),
            "w_zero_point": np.zeros(2, np.int8),
        },

    )  # fmt: skip
    (weight,), left = count_zeros(before, after)
    assert (weight.name, weight.shape, weight.elements) == ("w", [3, 2], 6)
    assert (weight.zeros_before, weight.zeros, weight.scales) == (3, 4, 2)
    assert left == ["v"]
