"""Tidying changes names and storage, and nothing that is computed."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from small_models import make_model, weights

from onnx_sipp.quantizing.tidy import tidied

X = weights(3, 2, 6, 6, seed=4)


def untidy():
    """A model with what quantisers leave behind."""
    one = np.ones(4, np.float32)
    model = make_model(
        [
            ("Conv", "x c", "a_very_long_name", {"strides": [1, 1], "dilations": [1, 1],
                                                 "auto_pad": "NOTSET", "pads": [1, 1, 1, 1]}),
            ("Mul", "a_very_long_name s1", "q0"),
            ("Mul", "q0 s2", "y"),
        ],
        {"c": weights(4, 2, 3, 3), "s1": one.reshape(4, 1, 1), "s2": one.reshape(4, 1, 1)},
        {"x": ["n", 2, 6, 6]},
        {"y": ["n", 4, 6, 6]},
    )  # fmt: skip
    model.graph.value_info.append(helper.make_tensor_value_info("q0", onnx.TensorProto.FLOAT, None))
    model.opset_import.append(helper.make_opsetid("com.nobody", 1))
    model.graph.node[0].name, model.graph.node[1].name = "first", "made up"
    return model


def original():
    model = make_model([("Conv", "x c", "y")], {"c": weights(4, 2, 3, 3)})
    model.graph.node[0].name = "first"
    return model


def run(model):
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": X})[0]


def test_outputs_stay_and_the_file_shrinks():
    model = untidy()
    before, size = run(model), model.ByteSize()
    result = tidied(model, original())
    onnx.checker.check_model(result, full_check=True)
    assert run(result).tobytes() == before.tobytes()
    assert result.ByteSize() < size
    assert not result.graph.value_info


def test_equal_constants_are_stored_once():
    result = tidied(untidy(), original())
    assert len(result.graph.initializer) == 2
    first, second = (node for node in result.graph.node if node.op_type == "Mul")
    assert first.input[1] == second.input[1]


def test_attributes_at_their_default_go():
    result = tidied(untidy(), original())
    (conv,) = (node for node in result.graph.node if node.op_type == "Conv")
    assert [attribute.name for attribute in conv.attribute] == ["pads"]


def test_names():
    """No new name is one that is taken already; those of original nodes stay."""
    result = tidied(untidy(), original())
    names = [name for node in result.graph.node for name in node.output]
    assert len(set(names)) == len(names)
    assert all(len(name) < 4 for name in names)
    assert [node.name for node in result.graph.node] == ["first", "", ""]


def test_operator_sets_that_nobody_uses_go():
    assert [entry.domain for entry in tidied(untidy(), original()).opset_import] == [""]


def test_a_weight_that_is_used_twice_keeps_one_name():
    model = make_model(
        [
            ("DequantizeLinear", "w_quantized w_scale w_zero_point", "w"),
            ("MatMul", "x w", "h"),
            ("MatMul", "h w", "y"),
        ],
        {
            "w_quantized": np.arange(16, dtype=np.int8).reshape(4, 4),
            "w_scale": np.float32(0.1), "w_zero_point": np.int8(0),
        },
        {"x": [1, 4]},
        {"y": [1, 4]},
    )  # fmt: skip
    float_model = make_model([("MatMul", "x w", "y")], {"w": weights(4, 4)})
    feed = {"x": weights(1, 4)}
    before = ort.InferenceSession(model.SerializeToString()).run(None, feed)[0]
    result = tidied(model, float_model)
    assert numpy_helper.to_array(result.graph.initializer[0]).dtype == np.int8
    assert result.graph.initializer[0].name == "w"
    after = ort.InferenceSession(result.SerializeToString()).run(None, feed)[0]
    assert before.tobytes() == after.tobytes()
