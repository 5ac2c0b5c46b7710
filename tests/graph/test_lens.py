"""Who reads a tensor, subgraphs included."""

import pytest
from onnx import helper
from small_models import constant, make_model, weights

from onnx_sipp.graph.lens import Readers

W = {"w": weights(4, 4)}


def inner_graph(*nodes):
    return helper.make_graph(
        list(nodes), "inner", [], [helper.make_tensor_value_info("inner", 1, None)]
    )


def beyond(model, name="w", times=1, nodes=(0,)):
    return Readers(model).beyond(name, times, set(nodes))


def test_one_layer():
    assert not beyond(make_model([("MatMul", "x w", "y")], W))


def test_two_layers():
    model = make_model([("MatMul", "x w", "h"), ("MatMul", "h w", "y")], W)
    assert not beyond(model, times=2, nodes=(0, 1))
    assert beyond(model, nodes=(0,)) == "MatMul ''"


def test_another_operator():
    model = make_model([("MatMul", "x w", "h"), ("Add", "h w", "y", {"name": "add"})], W)
    assert beyond(model) == "Add 'add'"


def test_the_same_node_in_another_role():
    model = make_model([("Gemm", "x w w", "y")], W)
    assert beyond(model) == "the same node in another role"


def test_an_output_of_the_graph():
    assert beyond(make_model([("MatMul", "x w", "y")], W, outputs=["y", "w"])) == (
        "the graph's output"
    )


def test_a_constant_node():
    model = make_model([constant("w", W["w"]), ("MatMul", "x w", "h"), ("Add", "h w", "y")], {})
    assert beyond(model, nodes=(1,)) == "Add ''"


@pytest.mark.parametrize("depth", [1, 2])
def test_a_subgraph(depth):
    body = inner_graph(helper.make_node("Identity", ["w"], ["inner"], name="deep"))
    for _ in range(depth - 1):
        node = helper.make_node("If", ["c"], ["inner"], then_branch=body, else_branch=body)
        body = inner_graph(node)
    nodes = [
        ("MatMul", "x w", "h"),
        helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body),
    ]
    model = make_model(nodes, W, inputs={"x": ["n", 4], "c": []}, outputs=["h", "z"])
    assert beyond(model) == "Identity 'deep'"


def test_it_says_nothing(capfd):
    node = helper.make_node("Odd", ["x", "w"], ["y"], domain="odd.domain")
    Readers(make_model([node], W, domains=["odd.domain"]))
    assert capfd.readouterr() == ("", "")
