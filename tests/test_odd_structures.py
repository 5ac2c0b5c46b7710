"""Models of odd make are pruned all the same, and nothing in them changes but weights."""

import numpy as np
import onnx
import pytest
from nested_models import W1, W2, body, if_model
from onnx import TensorProto, helper
from small_models import make_model, weights

import onnx_sipp
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.walk import all_sites

X = weights(40, 4, seed=9)
W = {"w": W1, "v": W2}


def pruned(model, **options):
    """Prune to a half; the result differs in payloads only."""
    result = onnx_sipp.prune(model, X, sparsity=0.5, **options)
    before, after = Model.load(model).proto, Model.load(result.model).proto
    for proto in (before, after):
        for site in all_sites(proto):
            if isinstance(site, TensorProto) and site.data_type == TensorProto.FLOAT:
                site.ClearField("raw_data")
    assert before == after
    assert result.report.zeros == round(0.5 * result.report.prunable) > 0
    return result


def dropout_model(outputs):
    return make_model(
        [("MatMul", "x w", "h"), ("Dropout", "h ratio mode", outputs), ("MatMul", "d v", "y")],
        W | {"ratio": np.array(0.5, np.float32), "mode": np.array(True)}, outputs={"y": ["n", 3]},
    )  # fmt: skip


@pytest.mark.parametrize("outputs", ["d", "d mask"])
def test_dropout_in_training_mode(outputs):
    """The same weights each time, as without it, though the model is random."""
    model = dropout_model(outputs)
    result = pruned(model)
    assert result.model == pruned(model).model
    plain = make_model([("MatMul", "x w", "h"), ("MatMul", "h v", "y")], W)
    expected = onnx_sipp.prune(plain, X, sparsity=0.5).model
    for name in W:
        found = [Model.load(proto).read(name) for proto in (result.model, expected)]
        np.testing.assert_allclose(*found, atol=1e-5)
    assert any("is a Dropout in training mode" in warning for warning in result.report.warnings)


def test_dropout_in_a_loop_hands_out_its_mask():
    inner = body(
        [("MatMul", "s w", "p"), ("Dropout", "p ratio mode", "d m"), ("Identity", "go", "on"),
         ("Identity", "m", "mask")],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("d", TensorProto.FLOAT, [None, 4]),
         helper.make_tensor_value_info("mask", TensorProto.BOOL, [None, 4])],
        {"ratio": np.array(0.5, np.float32), "mode": np.array(True)},
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("s", TensorProto.FLOAT, [None, 4])],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["trips", "", "x"], ["y", "masks"], body=inner)
    model = make_model([loop], {"trips": np.array(3), "w": weights(4, 4)}, outputs=["y"])
    assert pruned(model).model == pruned(model).model


def test_sequences_maps_and_optionals():
    zip_map = helper.make_node(
        "ZipMap", ["p"], ["map"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]
    )
    model = make_model(
        [
            ("MatMul", "x w", "h"),
            ("SequenceConstruct", "h h", "s"),
            ("SequenceAt", "s one", "e"),
            ("Optional", "e", "o"),
            ("OptionalGetElement", "o", "g"),
            ("MatMul", "g v", "p"),
            zip_map,
        ],
        W | {"one": np.array(1)}, outputs=["p", "s", "map"], domains=["ai.onnx.ml"],
    )  # fmt: skip
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    model.graph.output[1].CopyFrom(sequence)
    kind = model.graph.output[2].type.sequence_type.elem_type.map_type
    kind.key_type = TensorProto.INT64
    kind.value_type.tensor_type.elem_type = TensorProto.FLOAT
    outputs = {output.name: output for output in pruned(model).report.outputs}
    assert outputs["p"].relative_error > 0
    assert {outputs[name].note for name in ("s", "map")} == {"not a tensor of numbers"}


def test_text_that_is_no_utf8():
    """In an attribute, in a string tensor, in a body."""
    labels = onnx.NodeProto(op_type="LabelEncoder", input=["i"], output=["t"], domain="ai.onnx.ml")
    labels.attribute.add(name="keys_int64s", type=onnx.AttributeProto.INTS).ints.extend([0, 1])
    texts = labels.attribute.add(name="values_strings", type=onnx.AttributeProto.STRINGS)
    texts.strings.extend([b"\xff\xfe", b"\x80"])
    back = onnx.NodeProto(op_type="LabelEncoder", input=["t"], output=["f"], domain="ai.onnx.ml")
    back.attribute.add(name="keys_strings", type=onnx.AttributeProto.STRINGS).strings.extend(
        [b"\xff\xfe", b"\x80"]
    )
    back.attribute.add(name="values_floats", type=onnx.AttributeProto.FLOATS).floats.extend([1, 2])
    text = onnx.NodeProto(op_type="Constant", output=["unused"])
    text.attribute.add(name="value_string", type=onnx.AttributeProto.STRING).s = b"\xff"
    model = make_model(
        [("ArgMax", "x", "i", {"axis": 1}), labels, back, ("Mul", "x f", "h"), text,
         ("MatMul", "h w", "y")],
        {"w": W1}, domains=["ai.onnx.ml"], outputs={"y": ["n", 6]},
    )  # fmt: skip
    model.opset_import[1].version = 2
    pruned(model)


def test_deep_graphs():
    chain = [("Relu" if i % 2 else "Tanh", f"t{i}", f"t{i + 1}") for i in range(2500)]
    model = make_model([("MatMul", "x w", "t0"), *chain, ("MatMul", "t2500 v", "y")], W)
    pruned(model, method="magnitude")
    route = [("Identity", f"w{i}", f"w{i + 1}") for i in range(2500)]
    model = make_model([*route, ("MatMul", "x w2500", "y")], {"w0": W1})
    pruned(model, method="magnitude")


def test_initializers_that_may_be_overridden():
    """A condition and a weight that are graph inputs, too: their defaults count."""
    model = if_model("c", {"c": np.array(True)})
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    (choice,) = (node for node in model.graph.node if node.op_type == "If")
    (then,) = (a.g for a in choice.attribute if a.name == "then_branch")
    moved = [tensor for tensor in then.initializer if tensor.name == "w1"]
    model.graph.initializer.extend(moved)
    model.graph.input.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [4, 6]))
    then.initializer.remove(moved[0])
    result = pruned(model)
    assert [layer.observed for layer in result.report.layers] == [True, True]
