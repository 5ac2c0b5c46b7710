"""Dead paths over whole graphs."""

import numpy as np
import onnx
import pytest
from dead_checks import CONSTANT, UNREAD, chain, check, constants, facts_of, unread
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_models import make_model, weights

DEAD = {*CONSTANT, UNREAD}
SHAPED = {"x": ["n", 6, 4, 4]}


def test_nodes_in_any_order():
    proto = chain([("Relu", "h", "m")])
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    assert unread(facts_of(proto)["made"]) == DEAD


def test_an_output_of_the_graph_is_read():
    proto = chain([("Relu", "h", "m")])
    proto.graph.output.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, None))
    assert unread(check(proto)["made"]) == set()


@pytest.mark.parametrize(
    "node",
    [
        ("Softmax", "h", "m", {"axis": 1}),
        ("LRN", "h", "m", {"size": 3}),
        helper.make_node("Gelu", ["h"], ["m"], domain="com.microsoft"),
    ],
)
def test_unknown_operators_read_all_and_give_nothing_away(node):
    proto = chain([node])
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    facts = check(proto)
    assert unread(facts["made"]) == set()
    assert constants(facts["reader"]) == {}


def test_what_a_subgraph_reads_is_read():
    branches = {
        name: helper.make_graph(
            [helper.make_node(op, ["h"], [f"{name}_y"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)],
        )
        for name, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    middle = [
        ("ReduceSum", "x", "sum", {"keepdims": 0}),
        ("Greater", "sum zero", "yes"),
        helper.make_node("If", ["yes"], ["m"], **branches),
    ]
    assert unread(check(chain(middle, {"zero": np.float32(0)}))["made"]) == set()


def test_a_node_that_nothing_comes_of_is_there_for_somebody():
    proto = chain([("Relu", "h", "m")])
    weight = weights(3, 6, 1, 1)
    extra = make_model([("Conv", "h q", "loose", {"name": "loose"})], {"q": weight})
    proto.graph.node.extend(extra.graph.node)
    proto.graph.initializer.extend(extra.graph.initializer)
    facts = facts_of(proto)
    assert unread(facts["loose"]) == set()
    assert unread(facts["made"]) == set()  # it has no bias that could take up constants


def test_layers_that_are_not_pruned_keep_what_they_read():
    facts = check(chain([("Relu", "h", "m")]), exclude=["reader"])
    assert unread(facts["made"]) == {UNREAD}


def test_without_a_bias_only_zeros_can_go():
    proto = chain([("Relu", "h", "m")])
    del proto.graph.node[-1].input[2]
    facts = check(proto)
    assert constants(facts["reader"]) == {1: 0.0, 2: 0.75}
    assert np.flatnonzero(facts["reader"].removable).tolist() == [1]
    assert unread(facts["made"]) == {1, UNREAD}


def test_weights_that_several_layers_share_stay():
    nodes = [
        ("MatMul", "x w", "h", {"name": "first"}),
        ("Relu", "h", "k"),
        ("MatMul", "k w", "y", {"name": "second"}),
    ]
    weight = weights(4, 4)
    weight[:, 1] = 0
    facts = facts_of(make_model(nodes, {"w": weight}))
    assert constants(facts["second"]) == {1: 0.0}
    assert not facts["second"].removable.any()


def test_skip_paths_and_chains():
    """A channel of the stream that nobody reads is unread in every layer that adds to it."""
    nodes = [
        ("Conv", "x w0", "s0", {"name": "stem"}),
        ("Conv", "s0 w1 b1", "h1", {"name": "inner"}),
        ("Relu", "h1", "r1"),
        ("Conv", "r1 w2", "h2", {"name": "outer"}),
        ("Add", "s0 h2", "s1"),
        ("Relu", "s1", "r2"),
        ("GlobalAveragePool", "r2", "p"),
        ("Flatten", "p", "f"),
        ("Gemm", "f v c", "y", {"name": "head"}),
    ]
    made = {f"w{n}": weights(6, 6, 1, 1, seed=n) for n in range(3)}
    head = weights(6, 3)
    head[2] = made["w1"][:, 2] = 0  # nobody reads channel 2 of the stream
    head[3] = 0  # channel 3 is read by the inner layer
    made["w2"][:, 5] = 0  # nobody reads neuron 5 of the inner layer
    values = {**made, "b1": weights(6), "v": head, "c": weights(3)}
    facts = check(make_model(nodes, values, SHAPED), weights(2, 6, 4, 4))
    assert unread(facts["stem"]) == {2}
    assert unread(facts["outer"]) == {2, 3}
    assert unread(facts["inner"]) == {5}


def test_a_chain_of_unread_neurons():
    nodes = [("Gemm", f"x{n} w{n}", f"x{n + 1}", {"name": f"{n}"}) for n in range(4)]
    values = {f"w{n}": np.diag(weights(5, seed=n)) for n in range(4)}
    values["w3"][2] = 0
    proto = make_model(nodes, values, {"x0": ["n", 5]}, ["x4"])
    model = onnx.ModelProto.FromString(proto.SerializeToString())
    facts = facts_of(model)
    assert [unread(facts[f"{n}"]) for n in range(4)] == [{2}, {2}, {2}, set()]
    assert facts["1"].unread_inputs.tolist() == [[False, False, True, False, False]]


# --- any graph of these, any zeros -------------------------------------------------------------

MIDDLES = {
    "Relu": lambda h, m: [("Relu", h, m)],
    "LeakyRelu": lambda h, m: [("LeakyRelu", h, m)],
    "Sigmoid": lambda h, m: [("Sigmoid", h, m)],
    "Clip": lambda h, m: [("Clip", f"{h} low high", m)],
    "MaxPool": lambda h, m: [("MaxPool", h, m, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})],
    "AveragePool": lambda h, m: [
        ("AveragePool", h, m, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})
    ],
    "Norm": lambda h, m: [("BatchNormalization", f"{h} scale shift mean var", m)],
    "Mul": lambda h, m: [("Mul", f"{h} factor", m)],
    "skip": lambda h, m: [("Add", f"{h} s", m)],
    "twice": lambda h, m: [("Concat", f"{h} s", f"{m}_c", {"axis": 1}),
                           ("Slice", f"{m}_c three nine one", m)],
    "turned": lambda h, m: [("Transpose", h, f"{m}_t", {"perm": [0, 2, 3, 1]}),
                            ("Mul", f"{m}_t flat", f"{m}_u"),
                            ("Transpose", f"{m}_u", m, {"perm": [0, 3, 1, 2]})],
}  # fmt: skip
SHARED = {
    "low": np.float32(-0.5), "high": np.float32(0.5),
    "scale": np.float32([0, 1, 2, -1, 1, 0.5]), "shift": weights(6, seed=11),
    "mean": weights(6, seed=12), "var": np.abs(weights(6, seed=13)) + np.float32(0.5),
    "factor": np.float32([1, 0, 2, 1, -1, 1]).reshape(6, 1, 1),
    "flat": np.float32([1, 2, 0, 1, 0.5, 1]),
    "three": np.array([3]), "nine": np.array([9]), "one": np.array([1]),
}  # fmt: skip
CONVS = ({}, {"pads": [1, 1, 1, 1]}, {"group": 2}, {"group": 6, "pads": [1, 1, 1, 1]})


@st.composite
def networks(draw):
    """Convolutions with rows and columns of zeros, nodes between, a stem that skips ahead."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nodes = [("Conv", "x w_s b_s", "s", {"name": "stem"})]
    values = {**SHARED, "w_s": _sparse(rng, 6, 6, 1, 1), "b_s": _sparse(rng, 6)}
    last = "s"
    for place in range(draw(st.integers(1, 3))):
        how = draw(st.sampled_from(CONVS))
        kernel = 3 if "pads" in how else 1
        names = f"{last} w{place}" + (f" b{place}" if draw(st.booleans()) else "")
        nodes.append(("Conv", names, f"h{place}", {"name": f"conv{place}", **how}))
        values[f"w{place}"] = _sparse(rng, 6, 6 // how.get("group", 1), kernel, kernel)
        values[f"b{place}"] = _sparse(rng, 6)
        middle = draw(st.sampled_from(sorted(MIDDLES)))
        nodes += MIDDLES[middle](f"h{place}", f"m{place}")
        last = f"m{place}"
    nodes += [("Flatten", last, "f"), ("Gemm", "f v c", "y", {"name": "head"})]
    values |= {"v": _sparse(rng, 6 * 16, 3), "c": weights(3)}
    used = {name for node in nodes for name in node[1].split()}
    return make_model(nodes, {k: v for k, v in values.items() if k in used}, SHAPED)


def _sparse(rng, *shape):
    """Weights with zeros in rows, columns and here and there."""
    values = rng.standard_normal(shape).astype(np.float32)
    values[rng.random(shape[0]) < 0.3] = 0
    if len(shape) > 1:
        values[:, rng.random(shape[1]) < 0.3] = 0
        values[rng.random(shape) < 0.3] = 0
    if shape[0] == 96:
        values.reshape(6, 16, 3)[rng.random(6) < 0.3] = 0
    return values


@settings(max_examples=60, deadline=None)
@given(networks())
def test_nothing_comes_of_what_is_dead(proto):
    check(proto, weights(3, 6, 4, 4, seed=2))
