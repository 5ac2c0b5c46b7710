"""Unpacking gives back the model that was packed."""

import base64
import zlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_models import constant, make_model
from sparse_models import SHAPES, sparse, three_layers

import onnx_sipp
from onnx_sipp.errors import SippError


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.99, 1.0])
def test_the_same_message(share):
    model = three_layers(share)
    model.graph.initializer[1].doc_string = "kept"
    model.metadata_props.add(key="author", value="someone")
    packed = onnx_sipp.pack(model)
    assert len(packed.report.packed) == 3
    result = onnx_sipp.unpack(packed.model)
    assert sorted(result.names) == sorted(SHAPES)
    assert result.model == model


def test_constant_nodes_and_typed_fields():
    """Each tensor is again where it was: among the nodes, or in its field."""
    typed = helper.make_tensor(
        "t", TensorProto.FLOAT, (50, 40), sparse(50, 40, share=0.9, seed=1).ravel()
    )
    assert typed.float_data
    model = make_model(
        [
            ("Neg", "x", "n"),
            constant("w", sparse(60, 50, share=0.9)),
            ("MatMul", "n w", "a"),
            constant("small", np.ones(1, np.float32)),
            constant("v", sparse(40, 30, share=0.9)),
            ("MatMul", "a t", "b"),
            ("MatMul", "b v", "c"),
            ("Add", "c small", "y"),
        ],
        {"t": typed},
        {"x": ["n", 60]},
        {"y": ["n", 30]},
    )
    packed = onnx_sipp.pack(model)
    assert sorted(tensor.name for tensor in packed.report.packed) == ["t", "v", "w"]
    onnx.checker.check_model(packed.model, full_check=True)
    assert onnx_sipp.unpack(packed.model).model == model


def test_without_a_record():
    with pytest.raises(SippError, match="no record of what was packed"):
        onnx_sipp.unpack(three_layers(0.9))


def test_a_damaged_record():
    packed = onnx_sipp.pack(three_layers(0.9)).model
    for damage in ("{", "[]", '{"prefix": "pk", "initializers": [[0, "!"]], "constants": []}'):
        packed.metadata_props[-1].value = damage
        with pytest.raises(SippError, match="damaged"):
            onnx_sipp.unpack(packed)


def test_a_file_that_was_changed():
    packed = onnx_sipp.pack(three_layers(0.9)).model
    values = next(tensor for tensor in packed.graph.initializer if tensor.name == "pk0.V")
    packed.graph.initializer.remove(values)
    with pytest.raises(SippError, match=r"w1, w2, w3 cannot be rebuilt: 'pk0\.V' is missing"):
        onnx_sipp.unpack(packed)


def test_a_record_that_unpacks_without_end():
    packed = onnx_sipp.pack(three_layers(0.9)).model
    bomb = base64.b64encode(zlib.compress(bytes(64 << 20), 9)).decode()
    packed.metadata_props[-1].value = bomb
    with pytest.raises(SippError, match=r"unpacks to more than 33,554,432 bytes"):
        onnx_sipp.unpack(packed)


def test_a_graph_that_goes_round():
    packed = onnx_sipp.pack(three_layers(0.9)).model
    maker = next(node for node in packed.graph.node if "w1" in node.output)
    maker.input[0] = "w1"
    with pytest.raises(SippError, match="goes round in a circle"):
        onnx_sipp.unpack(packed)
