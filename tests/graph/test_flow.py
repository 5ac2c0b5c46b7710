"""Producers, readers, order, and parting a graph into segments."""

from itertools import pairwise

import pytest
from onnx import TensorProto, helper
from small_models import constant, make_model, mlp, weights

from onnx_sipp.graph.flow import Flow, cut
from onnx_sipp.graph.model import Model


def parted(proto, wanted):
    model = Model.load(proto)
    flow = Flow(model)
    return flow, cut(flow, model.proto.graph, wanted)


def names(proto, segment):
    return [proto.graph.node[index].output[0] for index in segment.nodes]


def chain(length=4):
    """Relus one after the other: x → t1 → t2 …"""
    tensors = ["x", *(f"t{i}" for i in range(1, length)), "y"]
    return make_model([("Relu", a, b) for a, b in pairwise(tensors)], {}, outputs=("y",))


# --- order -------------------------------------------------------------------------------------


def test_sorted_nodes_keep_their_places():
    flow = Flow(Model.load(chain()))
    assert [flow.place[index] for index in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("order", [(3, 2, 1, 0), (2, 0, 3, 1)])
def test_unsorted_nodes_are_ordered(order):
    proto = chain()
    nodes = [proto.graph.node[index] for index in order]
    shuffled = make_model(nodes, {})
    flow = Flow(Model(shuffled))
    by_place = sorted(range(4), key=flow.place.__getitem__)
    assert [nodes[index].output[0] for index in by_place] == ["t1", "t2", "t3", "y"]


def test_every_node_comes_after_all_it_reads():
    proto = make_model(
        [
            ("Add", "a b", "y"),
            ("Add", "b b", "a"),
            ("Add", "c x", "b"),
            constant("c", weights(4)),
        ],
        {},
    )
    flow = Flow(Model(proto))
    for index, reads in enumerate(flow.reads):
        for name in reads:
            if name in flow.producer:
                assert flow.place[flow.producer[name]] < flow.place[index]


def test_readers_count_every_read():
    flow = Flow(Model.load(make_model([("Relu", "x", "a"), ("Add", "a a", "y")], {})))
    assert flow.readers["a"] == [1, 1]
    assert flow.outputs == {"y"}


def test_upstream():
    flow = Flow(Model.load(mlp()))
    assert flow.upstream("r") == {0, 1}
    assert flow.upstream("x") == set()


# --- parting -----------------------------------------------------------------------------------


def test_every_node_runs_once():
    proto = chain(6)
    _, segments = parted(proto, [{"x"}, {"t2"}, {"t2", "t4"}, {"t5"}])
    assert [names(proto, s) for s in segments] == [[], ["t1", "t2"], ["t3", "t4"], ["t5"]]
    assert [s.inputs for s in segments] == [(), ("x",), ("t2",), ("t4",)]
    assert [s.outputs for s in segments] == [(), ("t2",), ("t4",), ("t5",)]


def test_what_nothing_asks_for_does_not_run():
    proto = make_model([("Relu", "x", "a"), ("Neg", "x", "b"), ("Add", "a b", "y")], {})
    _, (segment,) = parted(proto, [{"a"}])
    assert names(proto, segment) == ["a"]


def test_dead_tensors():
    _, segments = parted(chain(4), [{"x"}, {"t1"}, {"t2"}, {"t1"}])
    # t1 is asked for again in the last stage; x is last read in the second.
    assert [s.dead for s in segments] == [(), ("x",), ("t2", "x"), ("t1", "t2", "x")]


def test_a_skip_path_is_handed_on():
    proto = make_model(
        [
            ("Relu", "x", "skip"),
            ("Neg", "skip", "a"),
            ("Neg", "a", "b"),
            ("Add", "b skip", "c"),
            ("Neg", "c", "y"),
        ],
        {},
    )
    _, segments = parted(proto, [{"skip"}, {"a"}, {"y"}])
    assert segments[2].inputs == ("a", "skip")
    assert "skip" not in segments[1].dead


def test_constants_are_repeated_where_they_are_read():
    proto = make_model(
        [
            constant("c", weights(4)),
            ("Neg", "c", "d"),
            ("Add", "x d", "a"),
            ("Add", "a d", "y"),
        ],
        {},
    )
    flow, segments = parted(proto, [{"a"}, {"y"}])
    assert [names(proto, s) for s in segments] == [["c", "d", "a"], ["c", "d", "y"]]
    assert segments[1].inputs == ("a",)
    assert segments[0].outputs == ("a",)
    assert flow.is_constant(1, proto.graph)
    assert not flow.is_constant(2, proto.graph)


def test_no_initializer_is_an_input():
    _, segments = parted(mlp(), [{"x"}, {"r"}, {"y"}])
    assert [s.inputs for s in segments] == [(), ("x",), ("r",)]


def branches(then_nodes, else_nodes):
    graphs = {}
    for name, nodes in (("then_branch", then_nodes), ("else_branch", else_nodes)):
        graphs[name] = helper.make_graph(
            nodes, name, [], [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)]
        )
    return graphs


def test_bodies_read_from_outside():
    inner = branches(
        [helper.make_node("Add", ["a", "k"], ["then_branch_y"])],
        [
            helper.make_node("Neg", ["b"], ["own"]),
            helper.make_node("Neg", ["own"], ["else_branch_y"]),
        ],
    )
    proto = make_model(
        [
            ("Relu", "x", "a"),
            ("Neg", "x", "b"),
            helper.make_node("If", ["cond"], ["y"], **inner),
        ],
        {"cond": [True], "k": weights(4)},
    )
    flow, segments = parted(proto, [{"a"}, {"y"}])
    assert set(flow.reads[2]) == {"cond", "a", "k", "b"}
    assert flow.readers["a"] == [2]
    assert names(proto, segments[1]) == ["b", "y"]
    assert segments[1].inputs == ("a", "x")
    assert segments[0].dead == ()


def test_a_body_may_hand_out_an_outer_tensor():
    proto = make_model([("Relu", "x", "a")], {"cond": [True]})
    graph = helper.make_graph(
        [], "body", [], [helper.make_tensor_value_info("a", TensorProto.FLOAT, None)]
    )
    node = helper.make_node("If", ["cond"], ["y"], then_branch=graph, else_branch=graph)
    proto.graph.node.append(node)
    assert "a" in Flow(Model(proto)).reads[1]


# --- by weight ---------------------------------------------------------------------------------


def by_weight(proto, wanted, weights_of, limit):
    model = Model.load(proto)
    flow = Flow(model)
    return cut(flow, model.proto.graph, wanted, weights_of.__getitem__, limit)


def test_a_stage_falls_into_segments_by_what_its_nodes_weigh():
    proto = chain(7)
    segments = by_weight(proto, [{"t3"}, {"y"}], [2, 0, 2, 3, 0, 9, 0], 4)
    # t4 and the weightless t5; t6 is above the limit and stands alone.
    expected = [["t1", "t2", "t3"], ["t4", "t5"], ["t6"], ["y"]]
    assert [names(proto, segment) for segment in segments] == expected
    assert [segment.stage for segment in segments] == [0, 1, 1, 1]
    assert [segment.outputs for segment in segments] == [("t3",), ("t5",), ("t6",), ("y",)]
    assert [segment.inputs for segment in segments] == [("x",), ("t3",), ("t5",), ("t6",)]


def test_every_stage_has_a_segment():
    segments = by_weight(chain(3), [{"x"}, {"t1"}, {"t1"}, {"y"}], [9, 9, 9], 1)
    assert [segment.stage for segment in segments] == [0, 1, 2, 3, 3]
    assert [bool(segment.nodes) for segment in segments] == [False, True, False, True, True]


def test_constant_nodes_go_to_every_segment_that_reads_them():
    proto = make_model(
        [
            constant("c", weights(4)),
            ("Neg", "c", "d"),
            ("Add", "x d", "a"),
            ("Add", "a d", "b"),
            ("Identity", "d", "y"),
        ],
        {},
        outputs=("b", "y"),
    )
    segments = by_weight(proto, [{"b", "y"}], [0, 0, 5, 5, 0], 5)
    expected = [["c", "d", "a"], ["c", "d", "b", "y"]]
    assert [names(proto, segment) for segment in segments] == expected
    assert segments[1].outputs == ("b", "y")


def test_a_tensor_made_in_an_inner_segment_lives_until_its_stage_is_over():
    segments = by_weight(chain(4), [{"t1", "t3"}, {"y"}], [5, 5, 5, 5], 5)
    assert "t1" in segments[0].outputs
    assert "t1" not in segments[1].dead
    assert "t1" in segments[2].dead
