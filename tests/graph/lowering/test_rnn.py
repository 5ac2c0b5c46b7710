"""The layers of recurrent nodes see what a step written by hand sees."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered_models import LoweredModel, run
from onnx import helper
from onnx.reference import ReferenceEvaluator
from quantized_models import levels, scales
from quantized_models import model_of as model_of_integers
from small_models import make_model, weights

from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
BATCH, STEPS, INPUTS, HIDDEN = 2, 4, 3, 2


def sigmoid(x):
    return 0.5 + 0.5 * np.tanh(0.5 * x)


FUNCTIONS = {
    "Sigmoid": sigmoid,
    "Tanh": np.tanh,
    "Relu": partial(np.maximum, 0),
    "Softsign": lambda x: x / (1 + abs(x)),
    "HardSigmoid 0.3 0.4": lambda x: np.clip(0.3 * x + 0.4, 0, 1),
    "LeakyRelu 0.1": lambda x: np.where(x < 0, 0.1 * x, x),
    "ScaledTanh 0.8 0.5": lambda x: 0.8 * np.tanh(0.5 * x),
    "Affine 0.5 0.1": lambda x: 0.5 * x + 0.1,
}


class ByHand:
    """One direction of a recurrent node, sequence by sequence, step by step."""

    def __init__(self, op_type, w, r, b, functions, clip, linear_before_reset):
        self.op_type, self.w, self.r = op_type, w, r
        self.wb, self.rb = np.split(b, 2)
        self.functions = [FUNCTIONS[name] for name in functions]
        self.clip = (lambda x: np.clip(x, -clip, clip)) if clip else (lambda x: x)
        self.linear = linear_before_reset

    def step(self, x, h, c):
        """Returns h, c, and what the rows of R multiply."""
        wx, rh = self.w @ x + self.wb, self.r @ h + self.rb
        f, g, *last = self.functions
        if self.op_type == "RNN":
            return f(self.clip(wx + rh)), c, [h]
        if self.op_type == "LSTM":
            i, o, keep, new = np.split(self.clip(wx + rh), 4)
            c = f(keep) * c + f(i) * g(new)
            return f(o) * last[0](c), c, [h]
        z, reset = np.split(f(self.clip((wx + rh)[: 2 * HIDDEN])), 2)
        seen, rows = (h if self.linear else reset * h), slice(2 * HIDDEN, None)
        product = self.r[rows] @ seen + self.rb[rows]
        new = g(self.clip(wx[rows] + (reset * product if self.linear else product)))
        return (1 - z) * new + z * h, c, [h] if self.linear else [h, seen]

    def run(self, x, h, c, length, reverse):
        """x ``[steps, inputs]``; returns states, and what R multiplied, at each step."""
        states = np.zeros((len(x), HIDDEN))
        seen = {}
        for t in range(length)[:: -1 if reverse else 1]:
            h, c, seen[t] = self.step(x[t], h, c)
            states[t] = h
        return states, [seen[t] for t in range(length)]


@st.composite
def recurrences(draw):
    op_type = draw(st.sampled_from(list(GATES)))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    directions = 2 if direction == "bidirectional" else 1
    names = list(FUNCTIONS) if op_type == "GRU" else ["Sigmoid", "Tanh", "Relu"]
    each = {"LSTM": 3, "GRU": 2, "RNN": 1}[op_type]
    functions = [
        draw(st.sampled_from(names)) if draw(st.booleans()) else default
        for default in {3: ["Sigmoid", "Tanh", "Tanh"], 2: ["Sigmoid", "Tanh"], 1: ["Tanh"]}[each]
        * directions
    ]
    return {
        "op_type": op_type,
        "direction": direction,
        "functions": functions,
        "lengths": draw(st.sampled_from([None, [4, 4], [2, 4], [4, 1], [3, 0]])),
        "initial": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "clip": draw(st.sampled_from([None, None, 0.5])),
        "linear": draw(st.integers(0, 1)) if op_type == "GRU" else 0,
        "outputs": draw(st.sampled_from(["y", "h", "y h"])),
        "opset": draw(st.sampled_from([9, 11, 14, 17])),
    }


def model_of(case):
    """The model, its feed, and its constants."""
    gates = GATES[case["op_type"]] * HIDDEN
    directions = 2 if case["direction"] == "bidirectional" else 1
    values = {
        "w": weights(directions, gates, INPUTS),
        "r": weights(directions, gates, HIDDEN, seed=1),
    }
    feed = {"x": weights(STEPS, BATCH, INPUTS, seed=3)}
    names = ["x", "w", "r", "", "", ""]
    if case["bias"]:
        names[3], values["b"] = "b", weights(directions, 2 * gates, seed=2)
    if case["lengths"]:
        names[4], values["n"] = "n", np.array(case["lengths"], np.int32)
    if case["initial"]:
        names[5], feed["h0"] = "h0", weights(directions, BATCH, HIDDEN, seed=4)
    functions = [name.split() for name in case["functions"]]
    attributes = {
        "activations": [name for name, *_ in functions],
        "activation_alpha": [float(p[0]) for _, *p in functions if p],
        "activation_beta": [float(p[1]) for _, *p in functions if len(p) > 1],
        "direction": case["direction"],
        "hidden_size": HIDDEN,
        "clip": case["clip"],
    }
    if case["op_type"] == "GRU":
        attributes["linear_before_reset"] = case["linear"]
    made = {"y": "y", "h": "h"}
    outputs = [made[n] if n in case["outputs"].split() else "" for n in ("y", "h")]
    node = helper.make_node(
        case["op_type"], names, outputs, name="node",
        **{key: value for key, value in attributes.items() if value not in (None, [])},
    )  # fmt: skip
    proto = make_model(
        [node],
        values,
        inputs={name: value.shape for name, value in feed.items()},
        outputs=case["outputs"].split(),
    )
    proto.opset_import[0].version = case["opset"]
    return proto, feed, values


@settings(max_examples=60, deadline=None)
@given(recurrences())
def test_what_the_layers_see(case):
    proto, feed, values = model_of(case)
    found = LoweredModel(proto, feed)
    made = run(proto, feed)
    both = case["direction"] == "bidirectional"
    each = len(case["functions"]) // (2 if both else 1)
    for place, name in enumerate(["forward", "reverse"] if both else [case["direction"]]):
        suffix = f" {name}" if both else ""
        functions = case["functions"][place * each :][:each]
        functions = [*functions, functions[-1]] if each == 1 else functions
        w, r = values["w"][place], values["r"][place]
        b = values["b"][place] if case["bias"] else np.zeros(2 * len(w))
        by_hand = ByHand(case["op_type"], w, r, b, functions, case["clip"], case["linear"])
        seen = {}  # by sequence and step: the input, and what the rows of R multiply
        for at, length in enumerate(case["lengths"] or [STEPS] * BATCH):
            h = feed["h0"][place, at] if case["initial"] else np.zeros(HIDDEN)
            x = feed["x"][:, at]
            states, before = by_hand.run(x, h, np.zeros(HIDDEN), length, name == "reverse")
            if "y" in made:
                np.testing.assert_allclose(made["y"][:, place, at], states, rtol=1e-4, atol=1e-5)
            seen |= {(at, t): [x[t], *before[t]] for t in range(length)}
        # Sequence by sequence where all steps are data, else step by step.
        order = sorted(seen, key=lambda place: place[::-1] if case["lengths"] else place)
        split = case["op_type"] == "GRU" and not case["linear"]
        for part, what in enumerate(["W", "R zr", "R h"] if split else ["W", "R"]):
            rows = found.activation(f"node ({what}{suffix})").reshape(len(order), -1)
            expected = [seen[place][part] for place in order]
            np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per_neuron", [False, True])
def test_dynamically_quantised_lstm(per_neuron):
    rows = 4 * HIDDEN
    shape = (2, rows) if per_neuron else (2,)
    values = {
        "w": levels("s8", 2, INPUTS, rows),
        "r": levels("s8", 2, HIDDEN, rows),
        "b": weights(2, 2 * rows, seed=2),
        "s": scales(*shape) / 10,
        "z": np.zeros(shape, np.int8),
    }
    node = helper.make_node(
        "DynamicQuantizeLSTM",
        ["x", "w", "r", "b", "", "", "", "", "s", "z", "s", "z"],
        ["y"],
        name="node",
        domain="com.microsoft",
        hidden_size=HIDDEN,
        direction="bidirectional",
    )
    feed = {"x": weights(STEPS, BATCH, INPUTS, seed=3)}
    found = LoweredModel(model_of_integers([node], values, feed, {"y": 1}), feed)
    scale = values["s"].reshape(2, 1, -1)
    plain = {name: (values[name] * scale).swapaxes(1, 2) for name in "wr"}
    for place, name in enumerate(["forward", "reverse"]):
        for letter in "wr":
            layer = found.layers[f"node ({letter.upper()} {name})"]
            assert layer.op_type == "com.microsoft.DynamicQuantizeLSTM"
            np.testing.assert_allclose(found.matrix(layer)[0], plain[letter][place], rtol=1e-6)
    real = helper.make_node(
        "LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=HIDDEN, direction="bidirectional"
    )
    constants = {name: value.astype(np.float32) for name, value in plain.items()}
    proto = make_model([real], constants | {"b": values["b"]}, inputs={"x": feed["x"].shape})
    (states,) = run(proto, feed).values()
    before = np.concatenate([np.zeros_like(states[:1, 0]), states[:-1, 0]])
    seen = found.activation("node (R forward)").swapaxes(0, 1)
    np.testing.assert_allclose(seen, before, atol=0.02)


def refusal(node, values, opset=17, inputs=None):
    proto = make_model([node], values, inputs=inputs)
    proto.opset_import[0].version = opset
    found = find_layers(lower(Model.load(proto)))
    assert not found.layers
    return [(skip.reason, skip.parameters) for skip in found.skipped]


VALUES = {"w": weights(1, 2, 3), "r": weights(1, 2, 2), "n": np.array([3, 2], np.int32)}
SHAPES = {"x": [4, 2, 3]}


def test_lengths_in_an_old_opset():
    node = helper.make_node("RNN", ["x", "w", "r", "", "n"], ["y"], hidden_size=2)
    reason = "lengths of sequences cannot be followed in opset 8"
    assert refusal(node, VALUES, 8, SHAPES) == [(reason, 10)]


def test_one_weight_is_no_constant():
    node = helper.make_node("RNN", ["x", "w", "r"], ["y"], hidden_size=2)
    inputs = SHAPES | {"r": [1, 2, 2]}
    values = {"w": VALUES["w"]}
    assert refusal(node, values, 17, inputs) == [("one of its W and R is no constant", 6)]


def test_no_weight_is_constant():
    node = helper.make_node("RNN", ["x", "w", "r"], ["y"], hidden_size=2)
    assert refusal(node, {}, 17, SHAPES | {"w": [1, 2, 3], "r": [1, 2, 2]}) == []


def test_a_gate_function_that_is_not_known():
    node = helper.make_node(
        *("GRU", ["x", "w", "r"], ["y"]), hidden_size=2, activations=["Other", "Tanh"]
    )
    values = {"w": weights(1, 6, 3), "r": weights(1, 6, 2)}
    assert refusal(node, values, 17, SHAPES) == [("its activation Other is not known", 30)]


def test_batch_first():
    """Onnxruntime has no kernel for it; the reference implementation has."""
    node = helper.make_node(
        *("LSTM", ["x", "w", "r", "", "", "h0"], ["y"]), name="node", hidden_size=2, layout=1
    )
    values = {"w": weights(1, 8, 3), "r": weights(1, 8, 2, seed=1)}
    feed = {"x": weights(2, 4, 3, seed=2), "h0": weights(2, 1, 2, seed=3)}
    proto = make_model([node], values, inputs={name: v.shape for name, v in feed.items()})
    model = lower(Model.load(proto))
    layers = {layer.name: layer for layer in find_layers(model).layers}
    assert layers["node (W)"].activation == "x"
    model.proto.graph.output.add(name=layers["node (R)"].activation)
    states, seen = ReferenceEvaluator(model.proto).run(None, feed)
    before = np.concatenate([feed["h0"], states[:, :-1, 0]], axis=1)
    np.testing.assert_allclose(seen, before, rtol=1e-6)
