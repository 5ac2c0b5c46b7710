"""Every layer is found, and whatever else multiplies a constant is listed with the reason."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import FLOAT, constant, make_model, mlp, tensor, weights

from onnx_sipp.errors import UsageError
from onnx_sipp.graph.kinds import BUILDERS
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.unfolding.base import MatMulUnfolding
from onnx_sipp.unfolding.conv import ConvUnfolding
from onnx_sipp.unfolding.transposed import ConvTransposeUnfolding

W = weights(4, 6)


def find(model, **options):
    return find_layers(lower(Model.load(model)), **options)


def reasons(model, **options):
    """Name, parameters and reason of what is skipped, where no layer is found."""
    found = find(model, **options)
    assert not found.layers
    return [(skip.name, skip.parameters, skip.reason) for skip in found.skipped]


# --- what is found -----------------------------------------------------------------------------


def test_an_mlp():
    found = find(mlp())
    first, second = found.layers
    assert (first.name, first.op_type, first.index) == ("first", "Gemm", 0)
    assert (first.weight, first.bias, first.activation, first.output) == ("w1", "b1", "x", "h")
    assert (second.name, second.weight, second.activation) == ("second", "w2", "r")
    assert found.skipped == ()
    assert (found.prunable, found.parameters) == (56, 67)


def test_conv():
    attributes = {"pads": [1, 0, 2, 3], "strides": [2, 1], "dilations": [1, 2], "group": 2}
    model = make_model([("Conv", "x w b", "y", attributes)], {"w": weights(6, 2, 3, 1), "b": W[0]})
    (layer,) = find(model).layers
    assert layer.unfolding == ConvUnfolding((3, 1), (2, 1), (1, 2), ((1, 2), (0, 3)), 2)
    assert layer.view.matrix == (2, 3, 6)
    assert layer.bias == "b"


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_conv_defaults(axes):
    model = make_model([("Conv", "x w", "y")], {"w": weights(6, 2, *[3] * axes)})
    (layer,) = find(model).layers
    ones = (1,) * axes
    assert layer.unfolding == ConvUnfolding((3,) * axes, ones, ones, ((0, 0),) * axes)
    assert layer.bias is None


@pytest.mark.parametrize("auto_pad", ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
def test_auto_pad(auto_pad):
    model = make_model([("Conv", "x w", "y", {"auto_pad": auto_pad})], {"w": weights(6, 2, 3)})
    (layer,) = find(model).layers
    assert layer.unfolding.auto_pad == auto_pad


def test_conv_transpose():
    attributes = {"pads": [1, 0], "strides": [2], "group": 2, "output_padding": [1]}
    values = {"w": weights(4, 5, 3), "b": weights(10)}
    (layer,) = find(make_model([("ConvTranspose", "x w b", "y", attributes)], values)).layers
    assert layer.unfolding == ConvTransposeUnfolding((3,), (2,), (1,), ((1, 0),), (1,), groups=2)
    assert layer.view.matrix == (2, 5, 6)
    assert (layer.bias, layer.neuron_axis) == ("b", -2)


@pytest.mark.parametrize("shape", [[7, 9], [1, 5, 7, 9]])
def test_output_shape_of_conv_transpose(shape):
    """Some files give the whole shape, some its spatial part."""
    attributes = {"output_shape": shape}
    model = make_model([("ConvTranspose", "x w", "y", attributes)], {"w": weights(4, 5, 3, 3)})
    (layer,) = find(model).layers
    assert layer.unfolding.output_shape == (7, 9)


def test_gemm():
    attributes = {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}
    (layer,) = find(make_model([("Gemm", "x w", "y", attributes)], {"w": W})).layers
    assert (layer.scale, layer.bias) == (0.5, None)
    assert layer.view.matrix == (1, 4, 6)
    assert layer.unfolding == MatMulUnfolding(columns=True)


def test_gemm_with_a_computed_c():
    model = make_model([("Relu", "x", "c"), ("Gemm", "x w c", "y")], {"w": W})
    (layer,) = find(model).layers
    assert layer.bias is None


def test_matmul_on_either_side():
    (layer,) = find(make_model([("MatMul", "w x", "y")], {"w": W})).layers
    assert (layer.weight, layer.activation) == ("w", "x")
    assert layer.unfolding == MatMulUnfolding(columns=True, neurons_first=True)
    (layer,) = find(make_model([("MatMul", "x w", "y")], {"w": weights(2, 3, 4, 5)})).layers
    assert layer.unfolding == MatMulUnfolding(groups=(2, 3))
    assert layer.view.matrix == (6, 5, 4)


def test_weights_wherever_they_are_stored():
    nodes = [
        constant("c", W),
        ("MatMul", "x c", "h"),
        ("MatMul", "h i", "g"),
        ("MatMul", "g j", "y"),
    ]
    constants = {"i": weights(6, 4), "j": weights(4, 2)}
    found = find(make_model(nodes, constants, inputs={"x": ["n", 4], "j": [4, 2]}))
    assert [layer.weight for layer in found.layers] == ["c", "i", "j"]
    assert found.prunable == 24 + 24 + 8


@pytest.mark.parametrize(
    "dtype", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16]
)
def test_float_types(dtype):
    weight = W.astype(helper.tensor_dtype_to_np_dtype(dtype))
    assert len(find(make_model([("MatMul", "x w", "y")], {"w": weight})).layers) == 1


def test_the_explicit_domain_is_onnx_own():
    node = helper.make_node("MatMul", ["x", "w"], ["y"], domain="ai.onnx")
    (layer,) = find(make_model([node], {"w": W})).layers
    assert layer.op_type == "MatMul"


def test_nodes_in_any_order():
    """The order of nodes need not be topological."""
    model = make_model(
        [("MatMul", "h r", "y"), ("Relu", "p", "r"), ("MatMul", "x w", "h"), ("Neg", "q", "p")],
        {"w": W, "q": weights(6, 3)},
    )
    found = find(model)
    assert [layer.name for layer in found.layers] == ["MatMul#2"]
    (skip,) = found.skipped
    assert "computed from constants (Neg, Relu)" in skip.reason


def test_names():
    nodes = [
        ("MatMul", "x w", "a"),
        ("MatMul", "x w", "b", {"name": "twice"}),
        ("MatMul", "x w", "c", {"name": "twice"}),
        ("MatMul", "x w", "d", {"name": "MatMul#0"}),
        ("MatMul", "x w", "e", {"name": "once"}),
    ]
    found = find(make_model(nodes, {"w": W}, outputs="abcde"))
    names = [layer.name for layer in found.layers]
    assert names == ["MatMul#0'", "twice#1", "twice#2", "MatMul#0", "once"]


def test_a_deep_graph():
    """Neither recursion nor quadratic work: three thousand nodes, half of them constant."""
    nodes = [("Add", f"c{i} c{i}", f"c{i + 1}") for i in range(1500)]
    nodes += [("Relu", f"x{i}", f"x{i + 1}") for i in range(1500)]
    nodes += [("MatMul", "x1500 c1500", "h"), ("MatMul", "h w", "y")]
    model = make_model(nodes[::-1], {"c0": W, "w": weights(6, 2)}, inputs={"x0": ["n", 4]})
    found = find(model)
    assert len(found.layers) == 1
    (skip,) = found.skipped
    assert "computed from constants (Add)" in skip.reason


# --- shared weights ----------------------------------------------------------------------------


def test_a_shared_weight_counts_once():
    nodes = [("MatMul", "x w", "h"), ("Gemm", "h w", "y", {"transB": 1})]
    found = find(make_model(nodes, {"w": weights(4, 4)}))
    assert [layer.weight for layer in found.layers] == ["w", "w"]
    assert (found.prunable, found.parameters) == (16, 16)


@pytest.mark.parametrize(
    ("node", "outputs", "by"),
    [
        (("Add", "h w", "y", {"name": "add"}), ["y"], "Add 'add'"),
        (("Gather", "w i", "y", {"name": "lookup"}), ["h", "y"], "the graph's output via Gather"),
        (("Identity", "w", "y"), ["h", "y"], "the graph's output via Identity"),
        (("Gemm", "h v w", "y", {"name": "bias"}), ["y"], "Gemm 'bias'"),
        (("Relu", "h", "y"), ["y", "w"], "the graph's output"),
    ],
)
def test_a_weight_with_another_reader_is_skipped(node, outputs, by):
    constants = {"w": weights(4, 4), "v": weights(4, 4, seed=1), "i": np.array([0])}
    model = make_model([("MatMul", "x w", "h", {"name": "m"}), node], constants, outputs=outputs)
    found = find(model)
    # Gemm is another layer, but w is not its weight.
    assert [layer.weight for layer in found.layers] == ["v"] * (node[0] == "Gemm")
    (skip,) = (skip for skip in found.skipped if skip.name == "m")
    assert skip.reason == f"its weight 'w' is also read by {by} (see --include-tied)"
    assert skip.parameters == 16


def test_a_weight_that_a_subgraph_reads_is_skipped():
    body = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["z"], name="inside")], "body", [],
        [helper.make_tensor_value_info("z", FLOAT, None)],
    )  # fmt: skip
    branch = helper.make_node("If", ["c"], ["z2"], then_branch=body, else_branch=body)
    model = make_model(
        [("MatMul", "x w", "y", {"name": "m"}), branch], {"w": weights(4, 4), "c": np.array(True)},
        outputs=["y", "z2"],
    )  # fmt: skip
    by = "Add 'If#1 > then_branch > inside', Add 'If#1 > else_branch > inside'"
    assert reasons(model) == [
        ("m", 16, f"its weight 'w' is also read by {by} (see --include-tied)")
    ]


# --- what is skipped ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "ops"),
    [
        ([("Neg", "w", "t")], "Neg): Neg calculates"),
        ([("Slice", "w i i2", "s"), ("Neg", "s", "t")], "Slice, Neg): Neg calculates"),
        ([("ConstantOfShape", "shape", "t")], "ConstantOfShape): ConstantOfShape calculates"),
    ],
)
def test_computed_weights(nodes, ops):
    constants = {
        "w": W,
        "shape": np.array([4, 6]),
        "i": np.array([0]),
        "i2": np.array([3]),
    }
    model = make_model([*nodes, ("MatMul", "x t", "y", {"name": "m"})], constants)
    reason = f"its weight 't' is computed from constants ({ops}"
    assert reasons(model) == [("m", 0, reason)]


def test_random_numbers_are_no_constants():
    node = helper.make_node("RandomNormal", [], ["r"], shape=[4, 6])
    assert reasons(make_model([node, ("MatMul", "x r", "y")], {})) == []


def test_products_of_activations_are_not_listed():
    assert reasons(make_model([("MatMul", "x x", "h"), ("Mul", "h h", "y")], {})) == []


def test_both_operands_constant():
    constants = {"w": W, "v": weights(3, 4), "k": weights(2, 1, 3), "i": weights(1, 1, 9)}
    model = make_model(
        [("MatMul", "v w", "a"), ("Gemm", "v w", "b"), ("Conv", "i k", "c")], constants,
        outputs="abc",
    )  # fmt: skip
    assert {reason for _, _, reason in reasons(model)} == {"both its operands are constants"}


def test_a_sparse_initializer():
    model = make_model([("MatMul", "x w", "y", {"name": "m"})], {})
    values, places = tensor("w", np.ones(2, np.float32)), tensor("", np.array([0, 5]))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 6]))
    assert reasons(model) == [("m", 0, "its weight 'w' is a sparse tensor already")]


OTHERS = {
    "LayerNormalization": ({"w": W[0]}, "no weight matrix", 6),
    "BatchNormalization": ({"w": W[0]}, "no weight matrix", 6),
    "PRelu": ({"w": W[0]}, "no weight matrix", 6),
    "Mul": ({"w": W[0]}, "no weight matrix", 6),
    "Div": ({"w": W[0]}, "no weight matrix", 6),
    "com.microsoft.MoE": ({"w": W}, "com.microsoft are not supported", 24),
    "com.microsoft.MatMulNBits": ({"w": np.ones((4, 1, 8), np.uint8)}, "share bytes", 32),
    "com.microsoft.nchwc.Conv": ({"w": weights(8, 2, 3, 3)}, "prune before", 144),
    "my.domain.Anything": ({"w": W, "v": W}, "my.domain are not supported", 48),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_operators(kind):
    constants, reason, parameters = OTHERS[kind]
    domain, _, op_type = kind.rpartition(".")
    node = helper.make_node(op_type, ["x", *constants], ["y"], name="n", domain=domain)
    ((name, found, why),) = reasons(make_model([node], constants, domains=[domain] * bool(domain)))
    assert (name, found) == ("n", parameters)
    assert reason in why


def test_an_embedding():
    model = make_model([("Gather", "w x", "y", {"name": "n"})], {"w": W})
    assert reasons(model) == [("n", 24, "an embedding table is looked up, not multiplied")]


@pytest.mark.parametrize(
    ("op_type", "value"),
    [("Mul", np.float32(2)), ("Div", np.ones((1, 1), np.float32)), ("Mul", np.arange(4))],
)
def test_scalars_and_shapes_are_not_listed(op_type, value):
    assert reasons(make_model([(op_type, "x w", "y")], {"w": value})) == []


def test_arithmetic_of_constants_is_not_listed():
    model = make_model([("Mul", "w w", "c"), ("Add", "x c", "y")], {"w": W[0]})
    assert reasons(model) == []


@pytest.mark.parametrize(
    ("node", "weight", "reason"),
    [
        (("Conv", "x w", "y", {"group": 4}), weights(6, 2, 3), "does not fit 4 groups"),
        (("Conv", "x w", "y"), W, "does not fit 1 groups"),
        (("Conv", "x w", "y", {"pads": [1]}), weights(6, 2, 3), "the node is malformed"),
        (("Gemm", "x w", "y"), weights(2, 4, 6), "not two axes"),
        (("MatMul", "x w", "y"), np.float32(3), "is a scalar"),
        (("MatMul", "x w", "y"), W.astype(np.int32), "is not floating point"),
        (("MatMul", "x w", "y"), np.zeros((4, 0), np.float32), "has no elements"),
        (("MatMul", "x", "y"), W, "the node is malformed"),
        (("Gemm", "x w", ""), W, "the node is malformed"),
    ],
)
def test_odd_nodes(node, weight, reason):
    ((_, _, found),) = reasons(make_model([node], {"w": weight}))
    assert reason in found


def test_an_attribute_without_a_type():
    """As in files of the first ONNX version."""
    model = make_model([("Conv", "x w", "y", {"group": 1})], {"w": weights(6, 2, 3)})
    model.graph.node[0].attribute[0].ClearField("type")
    ((_, _, reason),) = reasons(model)
    assert reason == "the node is malformed: its attribute 'group' has no value or no type"


# --- subgraphs and functions -------------------------------------------------------------------


def branch(*nodes, constants=None, outputs=("y",)):
    graph = make_model(nodes, constants or {}, outputs=outputs).graph
    del graph.input[:]
    return graph


def test_layers_in_subgraphs():
    inner = branch(
        helper.make_node("If", ["c"], ["y"], name="deep",
                         then_branch=branch(("Gemm", "x own", "y", {"name": "g"}),
                                            constants={"own": weights(4, 2)}),
                         else_branch=branch(("MatMul", "x x", "y"))),
    )  # fmt: skip
    other = branch(
        constant("k", W), ("MatMul", "x k", "y"), ("MatMul", "x outer", "y"), ("Relu", "x", "y"),
        ("LayerNormalization", "x gain", "y", {"name": "ln"}), ("MatMul", "x turned", "y"),
    )  # fmt: skip
    model = make_model(
        [
            ("Transpose", "outer", "turned"),
            helper.make_node("If", ["c"], ["y"], name="if", then_branch=inner, else_branch=other),
        ],
        {"outer": W, "gain": W[0]}, inputs={"x": ["n", 4], "c": []},
    )  # fmt: skip
    found = find(model)
    assert [(layer.name, layer.view.size) for layer in found.layers] == [
        ("if > else_branch > MatMul#1", 24),
        ("if > else_branch > MatMul#2", 24),
        ("if > else_branch > MatMul#5", 24),
        ("if > then_branch > deep > then_branch > g", 8),
    ]
    assert found.prunable == 56
    (skip,) = found.skipped
    assert (skip.name, skip.parameters) == ("if > else_branch > ln", 6)


def test_layers_that_subgraphs_hide():
    """Their reasons are listed: of the layer itself, or of what it lies in."""
    states = [helper.make_tensor_value_info(name, FLOAT, None) for name in ("s", "f")]
    scanned = branch(("MatMul", "f own", "t"), ("Identity", "s", "o"), constants={"own": W},
                     outputs=["o", "t"])  # fmt: skip
    scanned.input.extend(states)
    node = helper.make_node("Scan", ["n", "x", "x"], ["a", "b"], body=scanned, num_scan_inputs=1)
    model = make_model([node, ("Add", "a b", "y")], {"n": np.array([3])})
    model.opset_import[0].version = 8
    padded = "what it hands out is padded to the longest sequence"
    assert reasons(model) == [("Scan#0", 0, padded), ("Scan#0 > body > MatMul#0", 24, padded)]
    body = branch(("Neg", "w", "k"), ("MatMul", "x k", "y"))
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    model = make_model([node], {"w": W}, inputs={"x": ["n", 4], "c": []})
    found = {name: reason for name, _, reason in reasons(model)}
    assert sorted(found) == ["If#0 > else_branch > MatMul#1", "If#0 > then_branch > MatMul#1"]
    assert all(reason.endswith("(Neg): Neg calculates") for reason in found.values())


def test_layers_in_functions():
    body = [
        helper.make_node("MatMul", ["a", "b"], ["c"], name="inside"),
        constant("k", weights(6, 2)),
        helper.make_node("MatMul", ["c", "k"], ["d"]),
    ]
    function = helper.make_function(
        "f", "Dense", ["a", "b"], ["d"], body, [helper.make_opsetid("", 17)]
    )
    node = helper.make_node("Dense", ["x", "w"], ["y"], domain="f")
    model = make_model([node], {"w": W}, functions=[function], domains=["f"])
    found = find(model)
    assert [(layer.name, layer.view.size) for layer in found.layers] == [
        ("Dense#0 > inside", 24),
        ("Dense#0 > MatMul#2", 12),
    ]
    assert (found.prunable, found.parameters, found.skipped) == (36, 36, ())


# --- exclusions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"exclude_nodes": ["first"]},
        {"exclude_nodes": ["f*"]},
        {"exclude_nodes": ["second", "f?rst"]},
        {"exclude_op_types": ["Gemm"]},
        {"exclude_op_types": ["G*"]},
    ],
)
def test_exclusions(options):
    found = find(mlp(), **options)
    everything = options not in ({"exclude_nodes": ["first"]}, {"exclude_nodes": ["f*"]})
    assert [layer.name for layer in found.layers] == ([] if everything else ["second"])
    assert found.skipped[0].name == "first"
    assert {skip.reason for skip in found.skipped} == {"excluded by the user"}
    assert found.prunable == (0 if everything else 24)
    assert found.parameters == 67


def test_excluding_one_user_of_a_shared_weight_keeps_the_weight():
    nodes = [("MatMul", "x w", "h", {"name": "a"}), ("MatMul", "h w", "y", {"name": "b"})]
    found = find(make_model(nodes, {"w": weights(4, 4)}), exclude_nodes=["a"])
    assert not found.layers
    assert [(skip.name, skip.reason) for skip in found.skipped] == [
        ("a", "excluded by the user"),
        ("b", "its weight 'w' is also read by MatMul 'a', excluded by the user"),
    ]


def test_a_name_with_brackets_is_taken_literally():
    nodes = [("MatMul", "x w", "y", {"name": "layer[0]/MatMul"})]
    assert not find(make_model(nodes, {"w": W}), exclude_nodes=["layer[0]/MatMul"]).layers


def test_an_operator_that_is_not_in_this_model_may_be_excluded():
    assert len(find(mlp(), exclude_op_types=["Conv", "LSTM", "Relu"]).layers) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude_nodes": ["frist"]}, "no node is called 'frist'; did you mean 'first'?"),
        ({"exclude_nodes": ["zzzzz*"]}, "no node is called 'zzzzz*'"),
        ({"exclude_op_types": ["Gem"]}, "no operator is called 'Gem'; did you mean 'Gemm'?"),
        ({"exclude_op_types": ["matmul"]}, "no operator is called 'matmul'; did you mean 'MatMul'"),
    ],
)
def test_exclusions_that_match_nothing(options, message):
    with pytest.raises(UsageError) as caught:
        find(mlp(), **options)
    assert str(caught.value).startswith(message)


def test_every_kind_is_documented_and_tested():
    """CONTRIBUTING promises: a kind of layer is one line in the table."""
    assert {op for _, op in BUILDERS} == {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    assert all(builder.__doc__ for builder in BUILDERS.values())


def test_the_model_is_not_changed():
    model = Model.load(mlp())
    before = model.proto.SerializeToString(deterministic=True)
    find_layers(lower(model), exclude_nodes=["first"])
    assert model.proto.SerializeToString(deterministic=True) == before


def test_parameters_are_floats_everywhere():
    inner = branch(("MatMul", "x own", "y"), constants={"own": weights(4, 2)})
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    constants = {"c": np.array(True), "i": np.arange(9), "w": W.astype(np.float16)}
    model = make_model([node, constant("k", W)], constants)
    assert find(model).parameters == 24 + 24 + 2 * 8
    scalar = onnx.helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(W[0, 0]))
    assert find(make_model([scalar, ("Add", "x s", "y")], {})).parameters == 1
