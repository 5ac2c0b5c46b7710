"""What a model takes, read from its session."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnx_sipp.calibration.specs import InputSpec, fix_shapes, input_specs, show_shape
from onnx_sipp.errors import SippError, UsageError


def model_of(*inputs: onnx.ValueInfoProto, initializers=()) -> onnx.ModelProto:
    nodes = [helper.make_node("Identity", [v.name], [v.name + "_out"]) for v in inputs]
    outputs = [helper.make_empty_tensor_value_info(v.name + "_out") for v in inputs]
    for value, output in zip(inputs, outputs, strict=True):
        output.type.CopyFrom(value.type)
    graph = helper.make_graph(nodes, "g", list(inputs), outputs, list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def value(name, dtype=TensorProto.FLOAT, shape=("N", 3)):
    return helper.make_tensor_value_info(name, dtype, shape)


@pytest.mark.parametrize(
    ("onnx_type", "dtype"),
    [
        (TensorProto.FLOAT, np.float32),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
        (TensorProto.INT64, np.int64),
        (TensorProto.UINT8, np.uint8),
        (TensorProto.BOOL, np.bool_),
    ],
)
def test_types(onnx_type, dtype):
    (spec,) = input_specs(session_of(model_of(value("x", onnx_type))))
    assert spec == InputSpec("x", np.dtype(dtype), ("N", 3))


def test_dimensions_and_order():
    model = model_of(value("b", shape=(-1, None, "H")), value("a", shape=(4, 1)))
    assert input_specs(session_of(model)) == (
        InputSpec("b", np.dtype(np.float32), (None, None, "H")),
        InputSpec("a", np.dtype(np.float32), (4, 1)),
    )


def test_initializers_that_are_graph_inputs_are_not_asked_for():
    weight = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "w")
    model = model_of(value("x"), value("w", shape=(3,)), initializers=[weight])
    assert [spec.name for spec in input_specs(session_of(model), model)] == ["x"]


def test_unknown_rank_is_told_from_a_scalar_by_the_model():
    model = model_of(value("unranked", shape=None), value("scalar", shape=()))
    session = session_of(model)
    assert [spec.shape for spec in input_specs(session)] == [(), ()]
    assert [spec.shape for spec in input_specs(session, model)] == [None, ()]


@pytest.mark.parametrize(
    "info",
    [
        value("text", TensorProto.STRING),
        helper.make_tensor_sequence_value_info("text", TensorProto.FLOAT, None),
    ],
)
def test_what_cannot_be_fed_is_named(info):
    with pytest.raises(SippError, match=r"'text' of the model is .* cannot be fed"):
        input_specs(session_of(model_of(value("x"), info)))


@pytest.mark.parametrize(
    ("shape", "batch"),
    [
        *[((8, 3), 8), ((1,), 1), (("N", 3), None), ((None,), None), ((), None), (None, None)],
        *[((-1, 3), None), ((0, 3), None), (("", 3), None)],
    ],
)
def test_fixed_batch(shape, batch):
    assert InputSpec("x", np.dtype(np.float32), shape).fixed_batch == batch


def test_show_shape():
    assert show_shape(("N", None, 3)) == "[N, ?, 3]"
    assert show_shape(()) == "[]"
    assert show_shape(None) == "of any rank"


class TestFixShapes:
    specs = (
        InputSpec("image", np.dtype(np.float32), ("N", 3, "H", None)),
        InputSpec("any", np.dtype(np.float32), None),
    )

    def test_named_inputs_become_static(self):
        image, other = fix_shapes(self.specs, {"image": (2, 3, 8, 8)})
        assert image.shape == (2, 3, 8, 8)
        assert other == self.specs[1]

    def test_unknown_rank(self):
        assert fix_shapes(self.specs, {"any": (1, 2)})[1].shape == (1, 2)

    def test_none(self):
        assert fix_shapes(self.specs, None) == self.specs

    @pytest.mark.parametrize(
        ("shapes", "message"),
        [
            ({"imgae": (1, 3, 8, 8)}, "no such input.*'image', 'any'.*mean 'image'"),
            ({"image": (1, 4, 8, 8)}, r"'image' is \[1, 4, 8, 8\], .* declares \[N, 3, H, \?\]"),
            ({"image": (3, 8, 8)}, "declares"),
            ({"image": (0, 3, 8, 8)}, "at least 1"),
        ],
    )
    def test_errors(self, shapes, message):
        with pytest.raises(UsageError, match=message):
            fix_shapes(self.specs, shapes)
