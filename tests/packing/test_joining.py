"""Small tensors packed together, and scales that are products."""

from itertools import pairwise

import numpy as np
import onnx
import onnxruntime as ort
import openvino
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from small_models import make_model
from sparse_models import sparse

import onnx_sipp

X = np.random.default_rng(3).standard_normal((4, 32), np.float32)


def layers(shares, opset=17, dtype=np.float32):
    """A chain of layers of 32 × 32 with so many zeros each."""
    names = ["x", *(f"h{n}" for n in range(1, len(shares))), "y"]
    nodes = [
        ("MatMul", f"{source} w{n}", target) for n, (source, target) in enumerate(pairwise(names))
    ]
    constants = {
        f"w{n}": sparse(32, 32, share=share, seed=n).astype(dtype) for n, share in enumerate(shares)
    }
    return make_model(nodes, constants, {"x": ["n", 32]}, {"y": ["n", 32]}, opset=opset)


def run(model):
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": X})[0]


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
def test_one_chain_for_all(opset):
    model = layers([0.9, 0.8, 0.95, 0.85], opset)
    result = onnx_sipp.pack(model)
    packed = result.model
    assert len(result.report.packed) == 4
    assert [node.op_type for node in packed.graph.node].count("Split") == 1
    onnx.checker.check_model(packed, full_check=True)
    assert run(packed).tobytes() == run(model).tobytes()
    assert onnx_sipp.unpack(packed).model == model
    for other in (in_openvino, in_reference):
        assert other(packed).tobytes() == other(model).tobytes()


def in_reference(model):
    return ReferenceEvaluator(model).run(None, {"x": X})[0]


def in_openvino(model):
    core = openvino.Core()
    return core.compile_model(core.read_model(model.SerializeToString()), "CPU")({"x": X})[0]


def test_together_takes_less_than_apart():
    shares = [0.9] * 6
    together = onnx_sipp.pack(layers(shares)).report
    apart = onnx_sipp.pack(layers(shares[:1])).report
    assert sum(t.bytes_after for t in together.packed) < 0.8 * 6 * apart.packed[0].bytes_after


def test_what_has_no_zeros_is_not_carried_along():
    result = onnx_sipp.pack(layers([0.9, 0.0, 0.9]))
    assert [tensor.name for tensor in result.report.packed] == ["w0", "w2"]
    assert [left.name for left in result.report.left] == ["w1"]
    assert run(result.model).tobytes() == run(layers([0.9, 0.0, 0.9])).tobytes()


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8])
def test_other_types(dtype):
    model = layers([0.9, 0.9])
    for tensor in model.graph.initializer:
        values = (numpy_helper.to_array(tensor) * 40).astype(dtype)
        values = np.tile(values, (2, 1))
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    del model.graph.node[:]
    model.graph.node.extend(
        onnx.helper.make_node("Identity", [f"w{n}"], [f"o{n}"]) for n in range(2)
    )
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    del model.graph.output[:]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(f"o{n}", kind, [64, 32]) for n in range(2)
    )
    result = onnx_sipp.pack(model)
    assert len(result.report.packed) == 2
    assert onnx_sipp.unpack(result.model).model == model


def test_scales_of_biases_are_products():
    model = quantised_layer(np.float32(0.1) * np.linspace(0.5, 2, 64, dtype=np.float32))
    packed = onnx_sipp.pack(model).model
    (product,) = (
        node for node in packed.graph.node if node.op_type == "Mul" and "bs" in node.output
    )
    assert list(product.input) == ["xs", "ws"]
    assert "bs" not in {tensor.name for tensor in packed.graph.initializer}
    assert onnx_sipp.unpack(packed).model == model
    assert run(packed).tobytes() == run(model).tobytes()


def test_other_scales_stay():
    model = quantised_layer(np.linspace(0.5, 2, 64, dtype=np.float32))
    packed = onnx_sipp.pack(model).model
    assert "bs" in {tensor.name for tensor in packed.graph.initializer}
    assert onnx_sipp.unpack(packed).model == model


def quantised_layer(bias_scale):
    levels = np.round(sparse(64, 32, share=0.9) * 20).astype(np.int8)
    return make_model(
        [
            ("QuantizeLinear", "x xs xz", "xq"),
            ("DequantizeLinear", "xq xs xz", "xd"),
            ("DequantizeLinear", "w ws wz", "wd", {"axis": 0}),
            ("DequantizeLinear", "b bs bz", "bd", {"axis": 0}),
            ("Gemm", "xd wd bd", "y", {"transB": 1}),
        ],
        {
            "xs": np.float32(0.1), "xz": np.uint8(128), "w": levels,
            "ws": np.linspace(0.5, 2, 64, dtype=np.float32), "wz": np.zeros(64, np.int8),
            "b": np.arange(64, dtype=np.int32), "bs": bias_scale,
            "bz": np.zeros(64, np.int32),
        },
        {"x": ["n", 32]},
        {"y": ["n", 64]},
    )  # fmt: skip
