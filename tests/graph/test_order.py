"""What nodes read, and their order."""

from nested_models import body
from onnx import helper
from small_models import as_node

from onnx_sipp.graph.order import in_order, only_needed, reads


def nodes(*made):
    return [as_node(node) for node in made]


def test_nodes_in_order_stay_where_they_are():
    chain = nodes(("Neg", "a", "b"), ("Neg", "x", "y"), ("Neg", "b", "c"), ("Neg", "y", "z"))
    assert in_order(chain) == [0, 1, 2, 3]


def test_nodes_out_of_order_follow_what_they_read():
    mixed = nodes(("Add", "b c", "d"), ("Neg", "b", "c"), ("Neg", "x", "e"), ("Neg", "a", "b"))
    assert in_order(mixed) == [2, 3, 1, 0]


def test_cycles_are_left_out():
    looped = nodes(("Neg", "b", "a"), ("Neg", "a", "b"), ("Neg", "b", "c"), ("Neg", "x", "y"))
    assert in_order(looped) == [3]


def test_a_deep_graph():
    chain = nodes(*(("Neg", f"t{i}", f"t{i + 1}") for i in range(5000)))
    assert in_order(chain[::-1]) == list(range(5000))[::-1]
    assert len(only_needed(chain, ["t5000"])) == 5000


def test_what_subgraphs_read_from_outside():
    deep = helper.make_node(
        "If", ["c"], ["d"],
        then_branch=body([("Add", "outer middle", "s")], ["s"]),
        else_branch=body([("Add", "own outer", "e")], ["e"], {"own": [1.0]}),
    )  # fmt: skip
    node = helper.make_node(
        "If", ["b"], ["y"],
        then_branch=body([("Neg", "x", "middle"), deep], ["d"]),
        else_branch=body([("Neg", "x", "middle")], ["aside"]),
    )  # fmt: skip
    assert set(reads(node)) == {"b", "x", "c", "outer", "aside"}


def test_only_what_is_needed():
    made = nodes(("Neg", "x", "a"), ("Neg", "a", "b"), ("Neg", "x", "c"), ("Add", "a b", "d"))
    assert only_needed(made, ["b"]) == made[:2]
    assert only_needed(made, ["c"]) == made[2:3]
    assert only_needed(made, ["x"]) == []
