"""Models with layers in functions and subgraphs, for tests."""

import numpy as np
import onnx
from onnx import TensorProto, helper
from small_models import FLOAT, as_node, make_model, tensor, weights

from onnx_sipp.graph.model import Model
from onnx_sipp.graph.tensors import read_inline
from onnx_sipp.graph.walk import all_sites

DOMAIN = "local"

W1, B1, W2, B2 = weights(4, 6), weights(6, seed=1), weights(6, 3, seed=2), weights(3, seed=3)
CONSTANTS = {"w1": W1, "b1": B1, "w2": W2, "b2": B2}
TWO_LAYERS = (
    ("Gemm", "x w1 b1", "h", {"name": "first"}),
    ("Relu", "h", "r"),
    ("MatMul", "r w2", "m", {"name": "second"}),
    ("Add", "m b2", "y"),
)


def info(name, shape=None, kind=FLOAT):
    """The declaration of a tensor."""
    return helper.make_tensor_value_info(name, kind, shape)


def body(nodes, outputs, constants=None, inputs=()):
    """A graph to lie in a node; outputs and inputs are declarations, or names."""
    declared = [[value if not isinstance(value, str) else onnx.ValueInfoProto(name=value)
                 for value in values] for values in (inputs, outputs)]  # fmt: skip
    stored = [tensor(name, value) for name, value in (constants or {}).items()]
    return helper.make_graph([as_node(node) for node in nodes], "body", *declared, stored)


def function(name, inputs, outputs, nodes, attributes=(), defaults=()):
    """A model-local function."""
    return helper.make_function(
        DOMAIN, name, inputs.split(), outputs.split(), [as_node(node) for node in nodes],
        [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)], list(attributes),
        list(defaults),
    )  # fmt: skip


def call(name, inputs, outputs, **attributes):
    """A node that calls a function."""
    return helper.make_node(name, inputs.split(), outputs.split(), domain=DOMAIN, **attributes)


def flat_model():
    """Two layers, 24 and 18 weights, in the main graph."""
    return make_model(TWO_LAYERS, CONSTANTS, outputs={"y": ["n", 3]})


def if_model(condition, constants=None, nodes=(), inputs=None, other=None):
    """The two layers in the then branch of an If; its condition is ``condition``."""
    other = other or body([("Slice", "x zero three one", "z")], ["z"])
    node = helper.make_node(
        "If", [condition], ["y"], name="choice",
        then_branch=body(TWO_LAYERS, ["y"], CONSTANTS), else_branch=other,
    )  # fmt: skip
    numbers = {"zero": np.array([0]), "three": np.array([3]), "one": np.array([1])}
    return make_model(
        [*nodes, node], numbers | (constants or {}), inputs=inputs, outputs={"y": ["n", 3]}
    )


def loop_model(constants=None, inside=None, trips=5):
    """``s = tanh(s w + c)`` again and again from x on, then ``y = s v``.

    Args:
        constants: of the main graph.
        inside: those of the body.
        trips: how often.
    """
    inner = body(
        [
            ("MatMul", "s w", "p", {"name": "inside"}),
            ("Add", "p c", "q"),
            ("Tanh", "q", "t"),
            ("Identity", "go", "on"),
        ],
        [info("on", [], TensorProto.BOOL), info("t", [None, 4])],
        {"c": weights(4, seed=6)} if inside is None else inside,
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("s", [None, 4])],
    )
    node = helper.make_node("Loop", ["trips", "", "x"], ["e"], name="loop", body=inner)
    return make_model(
        [node, ("MatMul", "e v", "y", {"name": "after"})],
        {"trips": np.array(trips), "v": weights(4, 3, seed=7)}
        | ({"w": 0.5 * weights(4, 4, seed=5)} if constants is None else constants),
        outputs={"y": ["n", 3]},
    )


def scan_model(opset=17):
    """``s = tanh(s u + x_t w)`` along the first axis of x, then ``y = s_t v`` for every t."""
    inner = body(
        [
            ("MatMul", "s u", "a", {"name": "state"}),
            ("Gemm", "f w c", "b", {"name": "input", "transB": 1}),
            ("Add", "a b", "q"),
            ("Tanh", "q", "t"),
            ("Identity", "t", "o"),
        ],
        [info("t", [1, 2]), info("o", [1, 2])],
        {"c": weights(2, seed=6)},
        [info("s", [1, 2]), info("f", [1, 4])],
    )
    scan = helper.make_node(
        "Scan", ["start", "x"], ["last", "all"], name="scan", body=inner, num_scan_inputs=1
    )
    if opset == 8:
        scan.input.insert(0, "")
    shape = [5, 1, 4] if opset > 8 else [1, 5, 1, 4]
    model = make_model(
        [scan, ("MatMul", "all v", "y", {"name": "after"})],
        {
            "u": 0.5 * weights(2, 2, seed=5), "w": weights(2, 4, seed=4),
            "v": weights(2, 3, seed=7),
            "start": np.zeros((1, 2) if opset > 8 else (1, 1, 2), np.float32),
        },
        inputs={"x": shape}, outputs={"y": None},
    )  # fmt: skip
    model.opset_import[0].version = opset
    return model


def of_shape(model, *shape):
    """The elements of the one site that has this shape."""
    found = [
        read_inline(holder)
        for holder in all_sites(Model.load(model).proto)
        if isinstance(holder, TensorProto) and tuple(holder.dims) == shape
    ]
    assert len(found) == 1
    return found[0]
