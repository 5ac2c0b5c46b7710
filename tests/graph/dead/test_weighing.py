"""Layers of every kind as readers and as makers of constants."""

import numpy as np
import pytest
from dead_checks import (
    CONSTANT,
    IMAGE,
    IMAGES,
    UNREAD,
    chain,
    check,
    constants,
    facts_of,
    unread,
)
from small_models import make_model, weights

RELU = [("Relu", "h", "m")]


@pytest.mark.parametrize("how", [{"pads": [1, 1, 1, 1]}, {"auto_pad": "SAME_UPPER"}])
def test_padding_spoils_all_constants_but_zero(how):
    facts = check(chain(RELU, **how))
    assert constants(facts["reader"]) == {1: 0.0}
    assert unread(facts["made"]) == {1, UNREAD}


@pytest.mark.parametrize("how", [{}, {"auto_pad": "VALID"}, {"strides": [2, 2]}])
def test_no_padding(how):
    assert constants(check(chain(RELU, **how))["reader"]) == {1: 0.0, 2: 0.75}


def test_kernels_read_a_channel_in_every_place():
    facts = check(wide(weights(2, 6, 3, 2, seed=5)))
    assert constants(facts["reader"]) == {
        6 * channel + place: value for channel, value in CONSTANT.items() for place in range(6)
    }


def wide(reader, **how):
    proto = chain([("Identity", "h", "m")], **how)
    reader[:, UNREAD] = 0
    place = [t.name for t in proto.graph.initializer].index("v")
    replaced = make_model([], {"v": reader}).graph.initializer[0]
    proto.graph.initializer[place].CopyFrom(replaced)
    return proto


def test_groups():
    nodes = [
        ("Conv", "x w b", "h", {"name": "made", "group": 3}),
        ("Conv", "h v c", "y", {"name": "reader", "group": 2}),
    ]
    made, reader = weights(6, 1, 2, 2), weights(4, 3, 1, 1, seed=1)
    bias = weights(6)
    made[1] = made[5] = 0  # channels 1 of group 0 and 2 of group 1
    reader[:2, 0] = 0  # channel 0
    facts = check(make_model(nodes, {"w": made, "b": bias, "v": reader, "c": weights(4)}, IMAGE))
    assert unread(facts["made"]) == {0, 1, 5}
    assert constants(facts["reader"]) == {1: float(bias[1]), 5: float(bias[5])}
    assert facts["reader"].unread_inputs.tolist() == [[True, True, False], [False, False, True]]


def test_depthwise():
    nodes = [
        ("Conv", "x w b", "h", {"name": "made"}),
        ("Conv", "h v c", "k", {"name": "depth", "group": 6}),
        ("Conv", "k u d", "y", {"name": "reader"}),
    ]
    made, depth, reader = weights(6, 3, 1, 1), weights(6, 1, 2, 2), weights(2, 6, 1, 1)
    made[0] = depth[1] = 0
    reader[:, 2] = 0
    values = {"w": made, "v": depth, "u": reader, "b": weights(6), "c": weights(6), "d": weights(2)}
    facts = check(make_model(nodes, values, IMAGE))
    assert unread(facts["made"]) == unread(facts["depth"]) == {0, 1, 2}
    assert set(constants(facts["reader"])) == {0, 1}


@pytest.mark.parametrize(
    "how", [{}, {"transB": 1}, {"alpha": 0.5}, {"beta": 0.25}, {"alpha": 2.0, "beta": 0.0}]
)
def test_gemm(how):
    first, second = weights(4, 5), weights(5, 2, seed=1)
    first[:, 1] = 0
    second[3] = 0
    values = {"w": first, "b": weights(5), "v": second, "c": weights(2)}
    if "transB" in how:
        values |= {"w": first.T.copy(), "v": second.T.copy()}
    nodes = [("Gemm", "x w b", "h", {"name": "made", **how}),
             ("Gemm", "h v c", "y", {"name": "reader", **how})]  # fmt: skip
    facts = check(make_model(nodes, values), weights(3, 4))
    # With beta 0 there is no bias that could take up a constant, and the constant itself is 0.
    assert unread(facts["made"]) == {1, 3}
    assert constants(facts["reader"]) == {1: pytest.approx(how.get("beta", 1) * values["b"][1])}


def test_gemm_on_the_left_and_transposed_input():
    nodes = [
        ("Gemm", "w x", "h", {"name": "made", "transB": 1}),  # [5, n]
        ("Gemm", "h v c", "y", {"name": "reader", "transA": 1}),
    ]
    first, second = weights(5, 4), weights(5, 2)
    first[1] = 0
    second[3] = 0
    facts = check(make_model(nodes, {"w": first, "v": second, "c": weights(2)}), weights(3, 4))
    assert unread(facts["made"]) == {1, 3}
    assert constants(facts["reader"]) == {1: 0.0}


def test_matmul_of_rank_three_with_an_added_bias():
    nodes = [
        ("MatMul", "x w", "h", {"name": "made"}),
        ("Add", "h b", "k"),
        ("Relu", "k", "r"),
        ("MatMul", "r v", "m", {"name": "reader"}),
        ("Add", "c m", "y"),
    ]
    first, second = weights(4, 5), weights(5, 2, seed=1)
    first[:, 1] = 0
    second[3] = 0
    values = {"w": first, "b": np.abs(weights(5)), "v": second, "c": weights(2)}
    facts = check(make_model(nodes, values, {"x": ["n", "t", 4]}), weights(3, 2, 4))
    assert unread(facts["made"]) == {1, 3}
    assert constants(facts["reader"]) == {1: float(values["b"][1])}


def test_matmul_on_the_left():
    nodes = [("MatMul", "w x", "h", {"name": "made"}), ("MatMul", "v h", "y", {"name": "reader"})]
    first, second = weights(5, 4), weights(2, 5)
    first[1] = 0
    second[:, 3] = 0
    facts = check(make_model(nodes, {"w": first, "v": second}, {"x": [4, 3]}), weights(4, 3))
    assert unread(facts["made"]) == {1, 3}
    assert constants(facts["reader"]) == {1: 0.0}


def test_vectors():
    nodes = [("MatMul", "x w", "h", {"name": "made"}), ("MatMul", "h v", "y", {"name": "reader"})]
    first, second = weights(4, 5), weights(5, 2)
    first[:, 1] = 0
    second[3] = 0
    facts = check(make_model(nodes, {"w": first, "v": second}, {"x": [4]}), weights(4))
    assert unread(facts["made"]) == {1, 3}


def test_batched_weights_are_read_but_give_nothing_away():
    nodes = [
        ("MatMul", "x w", "h", {"name": "made"}),
        ("MatMul", "h v", "k", {"name": "batched"}),
        ("MatMul", "k u", "y", {"name": "last"}),
    ]
    first, batched, last = weights(4, 5), weights(2, 5, 3), weights(3, 2)
    first[:, 1] = 0
    batched[:, 3] = 0
    batched[0, 2] = 0  # the other matrix reads it
    last[1] = 0
    facts = check(
        make_model(nodes, {"w": first, "v": batched, "u": last}, {"x": [2, 6, 4]}),
        weights(2, 6, 4),
    )
    assert unread(facts["made"]) == {1, 3}
    assert unread(facts["batched"]) == set()
    assert facts["batched"].constants.shape == (2, 5)


def test_a_neuron_whose_inputs_are_all_constant_is_constant():
    first, second, third = weights(4, 5), weights(5, 4, seed=1), weights(4, 2)
    first[:, :2] = 0
    second[2:, 0] = 0  # neuron 0 reads constants only
    nodes = [
        ("Gemm", "x w b", "h", {"name": "first"}),
        ("Gemm", "h v c", "k", {"name": "second"}),
        ("Gemm", "k u d", "y", {"name": "third"}),
    ]
    values = {
        "w": first,
        "b": weights(5),
        "v": second,
        "c": weights(4),
        "u": third,
        "d": weights(2),
    }
    facts = check(make_model(nodes, values), weights(3, 4))
    expected = values["c"][0] + second[:2, 0] @ values["b"][:2]
    assert constants(facts["third"]) == {0: pytest.approx(expected)}
    assert unread(facts["first"]) == {0, 1}
    assert unread(facts["second"]) == {0}


@pytest.mark.parametrize("shape", [[1], [5], [1, 5], [3, 1], [3, 5]])
def test_shapes_of_a_bias(shape):
    first = weights(4, 5)
    first[:, 1] = 0
    nodes = [("Gemm", "x w b", "h"), ("Gemm", "h v c", "y", {"name": "reader"})]
    values = {"w": first, "b": weights(*shape), "v": weights(5, 2), "c": weights(2)}
    facts = facts_of(make_model(nodes, values, {"x": [3, 4]}))
    by_row = shape[0] == 3
    assert set(constants(facts["reader"])) == (set() if by_row else {1})


def test_a_computed_bias_is_read_whole():
    nodes = [
        ("Gemm", "x w b", "h", {"name": "made"}),
        ("Gemm", "x u h", "k", {"name": "side"}),
        ("Gemm", "k v c", "y", {"name": "reader"}),
    ]
    side = weights(4, 5)
    side[:, 1] = 0
    values = {"w": weights(4, 5), "b": weights(5), "u": side, "v": weights(5, 2), "c": weights(2)}
    facts = check(make_model(nodes, values), weights(3, 4))
    assert unread(facts["made"]) == set()
    assert constants(facts["reader"]) == {}


def test_an_input_that_is_the_bias_too():
    nodes = [("Gemm", "x w b", "h", {"name": "made"}), ("Gemm", "h v h", "y", {"name": "reader"})]
    reader = weights(5, 5)
    reader[3] = 0
    values = {"w": weights(4, 5), "b": weights(5), "v": reader}
    assert unread(check(make_model(nodes, values), weights(3, 4))["made"]) == set()


def test_a_bias_beyond_any_number_makes_no_constant():
    nodes = [("Gemm", "x w b", "h"), ("Gemm", "h v c", "y", {"name": "reader"})]
    values = {"w": np.zeros((4, 2), np.float32), "b": np.float32([np.inf, 1])}
    proto = make_model(nodes, {**values, "v": weights(2, 2), "c": weights(2)})
    assert constants(facts_of(proto)["reader"]) == {1: 1.0}


def test_weights_beyond_one_block(monkeypatch):
    monkeypatch.setattr("onnx_sipp.graph.dead.weighing._BLOCK", 12)
    facts = check(chain(RELU))
    assert unread(facts["made"]) == {*CONSTANT, UNREAD}
    assert constants(facts["reader"]) == {1: 0.0, 2: 0.75}


def test_a_product_of_activations():
    nodes = [
        ("MatMul", "x w", "h", {"name": "right"}),
        ("MatMul", "x v", "k", {"name": "left"}),
        ("MatMul", "k h", "m"),
        ("MatMul", "m u", "y", {"name": "reader"}),
        ("MatMul", "h h", "square"),
    ]
    right, reader = weights(4, 4), weights(4, 2)
    right[:, 1] = 0
    reader[2] = 0
    proto = make_model(nodes[:-1], {"w": right, "v": weights(4, 4), "u": reader}, {"x": [4, 4]})
    facts = check(proto, weights(4, 4))
    assert unread(facts["right"]) == {1, 2}
    assert constants(facts["reader"]) == {1: 0.0}
    assert unread(facts["left"]) == set()
    proto = make_model(
        nodes, {"w": right, "v": weights(4, 4), "u": reader}, {"x": [4, 4]}, ["y", "square"]
    )
    assert unread(check(proto, weights(4, 4))["right"]) == set()


def test_images_are_no_constants():
    assert IMAGES.std() > 0
    assert constants(check(chain(RELU))["made"]) == {}
