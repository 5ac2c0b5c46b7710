"""What rules can ask of a graph."""

import numpy as np
from small_models import as_node, constant, make_model, weights

from onnx_sipp.graph.dead.scope import TRIALS, Scope
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.shapes import infer_kinds


def scope_of(nodes, constants=None, **how):
    model = Model.load(make_model(nodes, constants or {}, **how))
    flow = Flow(model)
    scope = Scope(model, flow.constants, infer_kinds(model))
    for index in flow.order:
        scope.learn_sizes(model.proto.graph.node[index])
    return scope


def test_sizes_follow_from_shapes_and_constants():
    nodes = [
        ("Shape", "x", "s"),
        constant("half", np.array([2])),
        ("Div", "s half", "d"),
        ("Concat", "d half", "y", {"axis": 0}),
    ]
    scope = scope_of(nodes, inputs={"x": ["n", 6]})
    for trial in TRIALS:
        np.testing.assert_array_equal(scope.known("y", trial), [trial // 2, 3, 2])


def test_what_is_drawn_or_depends_on_inputs_is_not_known():
    nodes = [("RandomNormal", "", "r", {"shape": [3]}), ("Add", "x r", "y")]
    nodes[0] = as_node(nodes[0])
    del nodes[0].input[:]
    scope = scope_of(nodes)
    assert scope.known("r", TRIALS[0]) is None
    assert scope.known("y", TRIALS[0]) is None


def test_values_of_constants_and_of_the_rest():
    scope = scope_of([("Add", "x k", "y"), ("Foo", "y", "z")], {"k": np.float32([1, 2, 3, 4])})
    np.testing.assert_array_equal(scope.value("k"), [1, 2, 3, 4])
    assert scope.value("y").shape == (1, 1)
    assert np.isnan(scope.value("y")).all()
    assert scope.value("z") is None


def test_facts_know_lengths_that_are_left_open():
    scope = scope_of([("Relu", "x", "y")], inputs={"x": ["n", "c", 4]})
    assert scope.shape("x") == (None, None, 4)
    scope.values["x"] = np.zeros((1, 3, 1))
    assert scope.shape("x") == (None, 3, 4)
    assert scope.shape("nowhere") is None


def test_large_constants_are_not_looked_at(monkeypatch):
    monkeypatch.setattr("onnx_sipp.graph.dead.scope._LARGE", 3)
    scope = scope_of([("Add", "x k", "y")], {"k": weights(4)})
    assert np.isnan(scope.value("k")).all()


def test_an_operator_that_fails_is_not_known():
    scope = scope_of([("Add", "x k", "y")], {"k": weights(4)})
    node = as_node(("Add", "a b", "c"))
    assert scope.evaluate(node, [np.ones(3), np.ones(4)]) is None
    assert scope.evaluate(as_node(("Nonsense", "a", "c")), [np.ones(3)]) is None
    (made,) = scope.evaluate(node, [np.ones(3), np.ones(3)])
    np.testing.assert_array_equal(made, 2 * np.ones(3))
