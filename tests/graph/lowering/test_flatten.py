"""One list of nodes: functions and known branches dissolve, constants leave subgraphs."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from nested_models import (
    CONSTANTS,
    TWO_LAYERS,
    W1,
    W2,
    body,
    call,
    flat_model,
    function,
    if_model,
    info,
    loop_model,
    scan_model,
)
from onnx import TensorProto, helper
from small_models import constant, make_model, weights

from onnx_sipp.errors import SippError
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.lowering.flatten import flatten
from onnx_sipp.graph.model import Model

X = weights(6, 4, seed=9)


def outputs(proto, feed):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def assert_same_outputs(proto, feed, branches=None, **options):
    """The lowered model computes what the original does."""
    lowered = lower(Model.load(proto), branches, **options)
    for mine, theirs in zip(outputs(lowered.proto, feed), outputs(proto, feed), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    return lowered


def labels(flat):
    return [label.name for _, label in flat.nodes]


# --- functions ---------------------------------------------------------------------------------


def nested_functions():
    inner = function("Inner", "a", "b", [constant("k", W2), ("MatMul", "a k", "b")])
    outer = function(
        "Outer", "x w", "y",
        [("MatMul", "x w", "h", {"name": "named"}), ("Relu", "h", "a"), call("Inner", "a", "y")],
    )  # fmt: skip
    return make_model(
        [call("Outer", "x w1", "y")], {"w1": W1}, outputs={"y": ["n", 3]},
        functions=[inner, outer], domains=["local"],
    )  # fmt: skip


def test_functions_are_inlined():
    flat = flatten(Model.load(nested_functions()))
    assert labels(flat) == [
        "Outer#0 > named",
        "Outer#0 > Relu#1",
        "Outer#0 > Inner#2 > MatMul#1",
    ]
    assert [node.op_type for node, _ in flat.nodes] == ["MatMul", "Relu", "MatMul"]
    assert {twin.kind for twin in flat.twins.values()} == {
        "initializer",
        "Constant node in a function",
    }
    lowered = assert_same_outputs(nested_functions(), {"x": X})
    assert not lowered.proto.functions


def test_a_function_called_twice_has_two_copies_of_nodes_and_one_site():
    cell = function("Cell", "x", "y", [constant("k", weights(4, 4)), ("MatMul", "x k", "y")])
    model = make_model(
        [call("Cell", "x", "h"), call("Cell", "h", "y")], {}, outputs={"y": ["n", 4]},
        functions=[cell], domains=["local"],
    )  # fmt: skip
    flat = flatten(Model.load(model))
    assert labels(flat) == ["Cell#0 > MatMul#1", "Cell#1 > MatMul#1"]
    assert list(flat.twins) == ["k", "k/1"]
    assert len({twin.site for twin in flat.twins.values()}) == 1
    assert_same_outputs(model, {"x": X})


def test_inner_names_may_be_those_of_the_main_graph():
    """``h`` and ``w1`` mean something else inside."""
    inner = function("Inner", "w1 h", "x", [("MatMul", "w1 h", "y"), ("Relu", "y", "x")])
    model = make_model(
        [call("Inner", "x w1", "h"), ("MatMul", "h w2", "y")], {"w1": W1, "w2": W2},
        outputs={"y": ["n", 3]}, functions=[inner], domains=["local"],
    )  # fmt: skip
    assert_same_outputs(model, {"x": X})


def test_outputs_that_no_node_of_the_function_makes():
    """An input, a constant, the same tensor twice, and one that nobody asks for."""
    odd = function(
        "Odd", "a", "a2 k n n2 gone",
        [constant("k", W1[0]), ("Neg", "a", "n"), ("Identity", "a", "a2"),
         ("Identity", "n", "n2"), ("Abs", "a", "gone")],
    )  # fmt: skip
    del odd.output[:]
    odd.output.extend(["a", "k", "n", "n", "gone"])
    model = make_model(
        [call("Odd", "x", "p q r s")], {}, outputs=["p", "q", "r", "s"], functions=[odd],
        domains=["local"],
    )  # fmt: skip
    lowered = lower(Model.load(model))
    p, q, r, s = outputs(lowered.proto, {"x": X})
    assert (p == X).all()
    assert (q == W1[0]).all()
    assert (r == -X).all()
    assert (s == -X).all()


def test_optional_inputs_and_attributes_may_be_left_out():
    product = onnx.NodeProto(op_type="Gemm", input=["x", "w", "c"], output=["y"])
    for name in ("alpha", "transB"):
        product.attribute.add(name=name, ref_attr_name=name, type=onnx.AttributeProto.FLOAT)
    product.attribute[1].type = onnx.AttributeProto.INT
    linear = function("Linear", "x w c", "y", [product], ["alpha", "transB"])
    model = make_model(
        [call("Linear", "x w1", "h"), call("Linear", "h w2 b", "y", alpha=2.0, transB=1)],
        {"w1": W1, "w2": np.ascontiguousarray(W2.T), "b": weights(3)}, outputs={"y": ["n", 3]},
        functions=[linear], domains=["local"],
    )  # fmt: skip
    first, second = (node for node, _ in flatten(Model.load(model)).nodes)
    assert not first.attribute
    assert list(first.input) == ["x", "w1", ""]
    assert {a.name: helper.get_attribute_value(a) for a in second.attribute} == {
        "alpha": 2.0,
        "transB": 1,
    }
    (y,) = outputs(lower(Model.load(model)).proto, {"x": X})
    np.testing.assert_allclose(y, 2 * (X @ W1 @ W2) + weights(3), rtol=1e-4)


def test_overloads():
    model = nested_functions()
    other = onnx.FunctionProto()
    other.CopyFrom(model.functions[0])
    other.overload = "small"
    other.node[0].attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(0.1 * W2, ""))
    model.functions.append(other)
    model.functions[1].node[2].overload = "small"
    (tensor,) = (t for name, t in lower(Model.load(model)).stored.items() if name == "k")
    np.testing.assert_allclose(onnx.numpy_helper.to_array(tensor), 0.1 * W2)


def test_numbers_that_a_call_passes_are_no_stored_elements():
    values = onnx.NodeProto(op_type="Constant", output=["k"])
    values.attribute.add(name="value_floats", ref_attr_name="row", type=onnx.AttributeProto.FLOATS)
    add = function("AddRow", "x", "y", [values, ("Add", "x k", "y")], ["row"])
    model = make_model(
        [call("AddRow", "x", "h", row=[1.0, 2.0, 3.0, 4.0]), ("MatMul", "h w", "y")], {"w": W1},
        outputs={"y": ["n", 6]}, functions=[add], domains=["local"],
    )  # fmt: skip
    lowered = assert_same_outputs(model, {"x": X})
    assert [layer.name for layer in find_layers(lowered).layers] == ["MatMul#1"]


def test_domains_that_only_a_function_imports():
    act = helper.make_function(
        "local", "Act", ["x"], ["y"],
        [helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")],
        [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
    )  # fmt: skip
    model = make_model(
        [call("Act", "x", "h"), ("MatMul", "h w", "y")], {"w": W1}, outputs={"y": ["n", 6]},
        functions=[act], domains=["local"],
    )  # fmt: skip
    assert_same_outputs(model, {"x": X})


def test_a_function_that_calls_itself():
    endless = function("Endless", "x", "y", [call("Endless", "x", "y")])
    model = make_model([call("Endless", "x", "y")], {}, functions=[endless], domains=["local"])
    with pytest.raises(SippError, match="the function 'Endless' calls itself"):
        Model.load(model)


# --- branches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [True, False])
def test_a_known_branch_takes_the_place_of_the_if(taken):
    model = if_model("c", {"c": np.array(taken)})
    flat = flatten(Model.load(model), {"choice": taken})
    branch, other = "then_branch", "else_branch"
    if not taken:
        branch, other = other, branch
    assert all(name.startswith(f"choice > {branch} > ") for name in labels(flat))
    assert {label.name.split(" > ")[1] for _, label in flat.unseen} == {other}
    assert (len(flat.nodes), len(flat.unseen)) == ((4, 1) if taken else (1, 4))
    assert flat.nodes[-1][0].output == ["y"]
    assert not flat.conditions
    assert {"w1", "b1", "w2", "b2"} <= set(flat.twins)
    assert_same_outputs(model, {"x": X})


def test_conditions_that_are_calculated_from_constants_are_known():
    model = if_model("c", {"a": np.array(1)}, [("Cast", "a", "b", {"to": 9}), ("Not", "b", "c")])
    lowered = lower(Model.load(model))
    assert not lowered.plan.conditions
    assert [node.op_type for node in lowered.proto.graph.node[:1]] == ["Slice"]


def test_other_conditions_are_listed():
    model = if_model("c", inputs={"x": ["n", 4], "c": []})
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.BOOL
    lowered = assert_same_outputs(model, {"x": X, "c": np.array(True)})
    assert lowered.plan.conditions == {"choice": "c"}
    known = assert_same_outputs(model, {"x": X, "c": np.array(True)}, {"choice": True})
    assert not known.plan.conditions


def test_branches_that_hand_out_what_they_do_not_make():
    """What is outside, a constant, and one tensor twice."""
    node = helper.make_node(
        "If", ["c"], ["p", "q", "r", "s"],
        then_branch=body(
            [("Neg", "x", "n"), ("Identity", "x", "i"), ("Identity", "k", "j")],
            ["i", "j", "n", "n"], {"k": W1},
        ),
        else_branch=body([("Abs", "x", "a")], ["a", "a", "a", "a"]),
    )  # fmt: skip
    model = make_model([node], {"c": np.array(True)}, outputs=["p", "q", "r", "s"])
    expected = [X, W1, -X, -X]
    for found, wanted in zip(
        outputs(lower(Model.load(model)).proto, {"x": X}), expected, strict=True
    ):
        assert (found == wanted).all()


# --- bodies ------------------------------------------------------------------------------------


def test_constants_leave_bodies():
    """Initializers, Constant nodes, and what is computed from them alone."""
    inside = {"c": weights(4, seed=6), "wt": np.ascontiguousarray(weights(4, 4).T)}
    model = loop_model({}, inside)
    (inner,) = (a.g for a in model.graph.node[0].attribute if a.name == "body")
    inner.node.insert(0, helper.make_node("Transpose", ["wt"], ["w"]))
    inner.node.append(constant("unused", W1))
    flat = flatten(Model.load(model))
    assert {"c", "wt", "unused"} <= set(flat.twins)
    assert labels(flat) == ["loop > body > Transpose#0", "loop", "after"]
    (kept,) = (a.g for a in flat.nodes[1][0].attribute if a.name == "body")
    assert not kept.initializer
    assert [node.name for node in kept.node] == ["inside", "Add#2", "Tanh#3", "Identity#4"]
    assert_same_outputs(model, {"x": X})


def test_an_output_of_a_body_that_is_constant():
    node = helper.make_node(
        "If", ["c"], ["y"],
        then_branch=body([], ["k"], {"k": W1}), else_branch=body([constant("j", W1)], ["j"]),
    )  # fmt: skip
    model = make_model([node], {}, inputs={"x": ["n", 4], "c": []}, outputs=["y"])
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.BOOL
    assert_same_outputs(model, {"x": X, "c": np.array(False)})


def test_bodies_out_of_order():
    model = loop_model()
    (inner,) = (a.g for a in model.graph.node[0].attribute if a.name == "body")
    nodes = list(inner.node)[::-1]
    del inner.node[:]
    inner.node.extend(nodes)
    lowered = lower(Model.load(model))
    np.testing.assert_allclose(*(outputs(m, {"x": X})[0] for m in (lowered.proto, loop_model())))
    assert [layer.name for layer in find_layers(lowered).layers] == [
        "loop > body > inside",
        "after",
    ]


def test_equal_names_in_both_branches_and_outside():
    branch = body(TWO_LAYERS, ["y"], CONSTANTS)
    node = helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    model = make_model(
        [*TWO_LAYERS[:2], node], {"w1": W1, "b1": weights(6, seed=8)},
        inputs={"x": ["n", 4], "c": []}, outputs=["z", "r"],
    )  # fmt: skip
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.BOOL
    lowered = lower(Model.load(model))
    z, r = outputs(lowered.proto, {"x": X, "c": np.array(True)})
    np.testing.assert_allclose(z, outputs(flat_model(), {"x": X})[0], rtol=1e-5)
    np.testing.assert_allclose(r, np.maximum(X @ W1 + weights(6, seed=8), 0), rtol=1e-5)
    assert len({layer.weight for layer in find_layers(lowered).layers}) == 5


def test_functions_and_branches_inside_bodies_dissolve():
    cell = function("Cell", "s", "t", [constant("k", 0.5 * weights(4, 4)), ("MatMul", "s k", "t")])
    choice = helper.make_node(
        "If", ["yes"], ["t"],
        then_branch=body([call("Cell", "s", "u")], ["u"]),
        else_branch=body([("Neg", "s", "v")], ["v"]),
    )  # fmt: skip
    inner = body(
        [choice, ("Identity", "go", "on")],
        [info("on", [], TensorProto.BOOL), info("t", [None, 4])],
        inputs=[info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL),
                info("s", [None, 4])],
    )  # fmt: skip
    node = helper.make_node("Loop", ["trips", "", "x"], ["y"], name="loop", body=inner)
    model = make_model(
        [node], {"trips": np.array(3), "yes": np.array(True)}, outputs={"y": ["n", 4]},
        functions=[cell], domains=["local"],
    )  # fmt: skip
    lowered = assert_same_outputs(model, {"x": X})
    (layer,) = find_layers(lowered).layers
    assert layer.name == "loop > body > If#0 > then_branch > Cell#0 > MatMul#1"


@pytest.mark.parametrize("watching", ["stacked", "collected", "not"])
def test_taps_change_no_output(watching):
    watched = {"loop": watching, "scan": watching}
    lowered = assert_same_outputs(loop_model(), {"x": X}, watched=watched)
    assert [layer.name for layer in find_layers(lowered).layers if "loop" in layer.name] == [
        "loop > body > inside"
    ]
    assert len(lowered.plan.taps) == (watching != "not")
    assert bool(lowered.plan.unwatched) == (watching == "not")
    feed = {"x": X[:5].reshape(5, 1, 4)}
    assert_same_outputs(scan_model(), feed, watched=watched)


def test_what_nobody_asks_for_is_not_run():
    lowered = lower(Model.load(loop_model()))
    proto = onnx.ModelProto.FromString(lowered.runnable(["y"])[0])
    assert [node.op_type for node in proto.graph.node] == ["Loop", "MatMul"]
    assert {tensor.name for tensor in proto.graph.initializer} == {"trips", "v", "w", "c"}
    everything = onnx.ModelProto.FromString(lowered.runnable()[0])
    assert [value.name for value in everything.graph.output] == ["y"]


def test_the_original_is_not_changed():
    for proto in (nested_functions(), if_model("c", {"c": np.array(True)}), loop_model()):
        model = Model.load(proto)
        lower(model)
        assert model.proto == proto
