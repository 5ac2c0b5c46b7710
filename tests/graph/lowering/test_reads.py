"""Who reads a constant, subgraphs included."""

import numpy as np
import pytest
from onnx import helper
from small_models import constant, make_model, weights

from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model

W = {"w": weights(4, 4)}


def inner_graph(*nodes):
    return helper.make_graph(
        list(nodes), "inner", [], [helper.make_tensor_value_info("inner", 1, None)]
    )


def readers(model, name="w"):
    """Label, number of inputs, and description of every reader of a constant."""
    reads = lower(Model.load(model)).plan.reads
    return [(read.reader, read.times, read.what) for read in reads if read.name == name]


def test_nodes():
    nodes = [("MatMul", "x w", "h", {"name": "m"}), ("Gemm", "h w w", "y")]
    expected = [("m", 1, "MatMul 'm'"), ("Gemm#1", 2, "Gemm ''")]
    assert readers(make_model(nodes, W)) == expected
    assert readers(make_model([constant("w", W["w"]), *nodes], {})) == [
        ("m", 1, "MatMul 'm'"),
        ("Gemm#2", 2, "Gemm ''"),
    ]


def test_an_output_of_the_graph():
    model = make_model([("MatMul", "x w", "y"), ("Neg", "w", "n")], W, outputs=["y", "w", "n"])
    assert readers(model) == [("", 1, "the graph's output"), ("MatMul#0", 1, "MatMul ''")]
    assert readers(model, "n") == [("", 1, "the graph's output via Neg")]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_subgraph(depth):
    body = inner_graph(helper.make_node("Add", ["x", "w"], ["inner"], name="deep"))
    for _ in range(depth - 1):
        node = helper.make_node("If", ["c"], ["inner"], then_branch=body, else_branch=body)
        body = inner_graph(node)
    nodes = [
        ("MatMul", "x w", "h"),
        helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body),
    ]
    model = make_model(nodes, W, inputs={"x": ["n", 4], "c": []}, outputs=["h", "z"])
    found = readers(model)
    assert len(found) == 1 + 2**depth
    paths = {reader for reader, _, what in found if what == "Add 'deep'"}
    middle = " > If#0 > then_branch" if depth == 2 else ""
    assert f"If#1 > else_branch{middle} > deep" in paths


def test_a_branch_that_is_never_taken():
    then = inner_graph(helper.make_node("Add", ["x", "w"], ["inner"]))
    other = inner_graph(helper.make_node("Transpose", ["w"], ["inner"]))
    node = helper.make_node("If", ["c"], ["z"], name="if", then_branch=then, else_branch=other)
    model = make_model([node], W | {"c": np.array(True)}, outputs=["z"])
    assert readers(model) == [("if > then_branch > Add#0", 1, "Add 'if > then_branch > Add#0'")]
    assert readers(model, "inner") == [("if", 1, "Identity '' via Transpose")]


def test_it_says_nothing(capfd):
    node = helper.make_node("Odd", ["x", "w"], ["y"], domain="odd.domain")
    assert readers(make_model([node], W, domains=["odd.domain"])) == [("Odd#0", 1, "Odd ''")]
    assert capfd.readouterr() == ("", "")
