"""Dead paths through operators that work element by element."""

import numpy as np
import onnx
import pytest
from dead_checks import CONSTANT, IMAGE, UNREAD, chain, check, constants, facts_of, producer, unread
from onnx.reference import ReferenceEvaluator
from small_models import as_node, make_model, weights

from onnx_sipp.graph.dead.elementwise import ELEMENTWISE

DEAD = {*CONSTANT, UNREAD}
POSITIVE_ONLY = ("Log", "Sqrt", "Pow", "Reciprocal")
OPERANDS = {"Pow": "k", "PRelu": "k", "Add": "k", "Div": "k", "Sub": "k", "Max": "k k", "Mean": "k",
            "Min": "k", "Sum": "k k"}  # fmt: skip
PER_CHANNEL = np.linspace(0.5, 2, 6, dtype=np.float32).reshape(6, 1, 1)


def middle_of(op):
    operands = f"h {OPERANDS[op]}" if op in OPERANDS else "h"
    attributes = {"to": onnx.TensorProto.FLOAT} if op == "Cast" else {}
    if op in POSITIVE_ONLY:
        return [("Abs", "h", "a"), (op, operands.replace("h", "a"), "m", attributes)]
    return [(op, operands, "m", attributes)]


def by_reference(op, value, channel):
    """What the operators of `middle_of` make of one value."""
    nodes = [as_node(node) for node in middle_of(op)]
    proto = make_model(nodes, {"k": PER_CHANNEL.ravel()[channel]}, {"h": [1]}, ["m"])
    proto.opset_import[0].version = 24
    return float(ReferenceEvaluator(proto).run(None, {"h": np.float32([value])})[0][0])


@pytest.mark.parametrize("op", ELEMENTWISE)
def test_constants_go_through(op):
    opset = 17 if op not in ("Gelu", "Mish", "Swish") else 24
    proto = chain(middle_of(op), {"k": PER_CHANNEL}, opset=opset)
    facts = facts_of(proto) if op == "Swish" else check(proto)  # no runtime has Swish yet
    assert unread(facts["made"]) == DEAD
    found = constants(facts["reader"])
    assert set(found) == set(CONSTANT)
    for channel, value in CONSTANT.items():
        assert found[channel] == pytest.approx(by_reference(op, value, channel), abs=1e-6)


def test_clip_with_bounds_and_without():
    bounds = {"low": np.float32(-0.1), "high": np.float32(0.2)}
    for operands, expected in (("h low high", (-0.1, 0.2)), ("h  high", (-0.5, 0.2))):
        node = onnx.helper.make_node("Clip", operands.split(" "), ["m"])
        found = constants(check(chain([node], bounds))["reader"])
        assert found == pytest.approx({1: expected[0], 2: expected[1]})


def test_an_operand_that_differs_from_place_to_place_leaves_nothing_constant():
    facts = check(chain([("Add", "h k", "m")], {"k": weights(6, 4, 4)}))
    assert unread(facts["made"]) == {UNREAD}
    assert constants(facts["reader"]) == {}


def test_a_factor_of_zero():
    k = PER_CHANNEL.copy()
    k[3] = 0
    facts = check(chain([("Mul", "h k", "m")], {"k": k}))
    assert unread(facts["made"]) == {*DEAD, 3}
    assert constants(facts["reader"])[3] == 0


@pytest.mark.parametrize("node", [("Mul", "h k", "y"), ("BatchNormalization", "h k t m v", "y")])
def test_a_factor_of_zero_before_the_output(node):
    weight, _ = producer()
    k = PER_CHANNEL.ravel().copy()
    k[3] = 0
    values = {"w": weight, "t": weights(6), "m": weights(6), "v": np.abs(weights(6))}
    values["k"] = k.reshape(6, 1, 1) if node[0] == "Mul" else k
    proto = make_model([("Conv", "x w", "h", {"name": "made"}), node], values, IMAGE)
    assert unread(check(proto)["made"]) == {3}


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
def test_the_sum_of_two_layers_is_dead_where_both_are(op):
    other = weights(6, 3, 3, 3, seed=3)
    other[1] = 0
    middle = [("Conv", "x u d", "g", {"name": "side", "pads": [1, 1, 1, 1]}), (op, "h g", "m")]
    bias = np.full(6, 0.25, np.float32)
    facts = check(chain(middle, {"u": other, "d": bias}))
    assert unread(facts["made"]) == unread(facts["side"]) == {1, UNREAD}
    expected = {"Add": -0.25, "Sub": -0.75, "Mul": -0.125}[op]
    assert constants(facts["reader"]) == pytest.approx({1: expected})


def test_the_same_tensor_twice():
    facts = check(chain([("Mul", "h h", "m")]))
    assert constants(facts["reader"]) == pytest.approx({1: 0.25, 2: 0.5625})


NORMALIZATION = {
    "s": np.float32([0, 1, 2, 1, 1, 1]),
    "t": weights(6, seed=1),
    "m0": weights(6, seed=2),
    "v0": np.abs(weights(6, seed=3)) + np.float32(1),
}


def test_batch_normalization():
    facts = check(chain([("BatchNormalization", "h s t m0 v0", "m")], NORMALIZATION))
    assert unread(facts["made"]) == {*DEAD, 0}
    found = constants(facts["reader"])
    assert set(found) == {0, *CONSTANT}
    assert found[0] == NORMALIZATION["t"][0]


def test_batch_normalization_that_trains_is_not_known():
    node = onnx.helper.make_node(
        "BatchNormalization", ["h", "s", "t", "m0", "v0"], ["m", "", ""], training_mode=1
    )
    assert unread(facts_of(chain([node], NORMALIZATION))["made"]) == set()


def test_dropout():
    off = {"ratio": np.float32(0.5), "off": np.bool_(False), "zero": np.float32(0)}
    for operands in ("h", "h ratio", "h ratio off"):
        assert unread(check(chain([("Dropout", operands, "m")], off))["made"]) == DEAD
    middle = [
        ("ReduceSum", "x", "sum", {"keepdims": 0}),
        ("Greater", "sum zero", "on"),
        ("Dropout", "h ratio on", "m"),
    ]
    assert unread(facts_of(chain(middle, off))["made"]) == set()


def test_operands_that_an_attribute_aligns_are_not_known():
    node = ("Add", "h k", "m", {"axis": 1, "broadcast": 1})
    facts = facts_of(chain([node], {"k": PER_CHANNEL.ravel()}, opset=6))
    assert unread(facts["made"]) == set()


def test_values_beyond_any_number_are_no_constants():
    facts = facts_of(chain([("Log", "h", "m")]))
    assert set(constants(facts["reader"])) == {2}


def test_a_cast_to_a_narrow_type_rounds():
    middle = [
        ("Cast", "h", "a", {"to": onnx.TensorProto.FLOAT16}),
        ("Mul", "a k", "e"),
        ("Cast", "e", "m", {"to": onnx.TensorProto.FLOAT}),
    ]
    facts = facts_of(chain(middle, {"k": np.full((6, 1, 1), 0.1, np.float16)}))
    assert constants(facts["reader"])[2] == float(np.float16(0.75) * np.float16(0.1))


def test_gates_of_squeeze_and_excitation():
    middle = [
        ("GlobalAveragePool", "h", "p"),
        ("Conv", "p g d", "q", {"name": "gate"}),
        ("Sigmoid", "q", "r"),
        ("Relu", "h", "a"),
        ("Mul", "a r", "m"),
    ]
    facts = check(chain(middle, {"g": weights(6, 6, 1, 1, seed=2), "d": weights(6)}))
    assert unread(facts["gate"]) == {1, UNREAD}  # what they gate is zero, or is not read
    assert unread(facts["made"]) == {*CONSTANT} - {2}
    assert constants(facts["reader"]) == {1: 0.0}
