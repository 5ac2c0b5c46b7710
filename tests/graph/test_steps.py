"""The way through a graph."""

from small_models import make_model, mlp, weights

from onnx_sipp import inspect
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.steps import steps_of


def found(proto):
    layers = [layer.name for layer in inspect(proto).layers]
    steps = steps_of(Model.load(proto), layers)
    return [(step.name, [steps[source].name for source in step.sources]) for step in steps], steps


def test_a_chain():
    rows, steps = found(mlp())
    assert [(sources, step.layers) for (_, sources), step in zip(rows, steps, strict=True)] == [
        ([], ()),
        ([steps[0].name], ("first",)),
        (["first"], ("second",)),
        (["second"], ()),
    ]


def test_ways_meet():
    nodes = [
        ("MatMul", "x a", "h", {"name": "one"}),
        ("Relu", "h", "r", {"name": "relu"}),
        ("MatMul", "r b", "g", {"name": "two"}),
        ("Add", "g r", "s", {"name": "sum"}),
        ("Shape", "h", "shape", {"name": "shape"}),
        ("Reshape", "s shape", "y", {"name": "again"}),
    ]
    rows, _ = found(make_model(nodes, {"a": weights(4, 4), "b": weights(4, 4)}))
    assert rows == [
        ("x", []),
        ("one", ["x"]),
        ("two", ["one"]),
        ("sum", ["one", "two"]),
        ("y", ["sum"]),
    ]


def test_sources_come_before_even_if_nodes_do_not():
    nodes = [
        ("MatMul", "h b", "y", {"name": "two"}),
        ("MatMul", "x a", "h", {"name": "one"}),
    ]
    proto = make_model(nodes, {"a": weights(4, 4), "b": weights(4, 4)})
    steps = steps_of(Model.load(proto), ["one", "two"])
    assert [step.name for step in steps] == ["x", "one", "two", "y"]
    assert all(source < place for place, step in enumerate(steps) for source in step.sources)


def test_layers_in_a_node_belong_to_it():
    nodes = [("MatMul", "x a", "y", {"name": "cell (old)"})]
    model = Model.load(make_model(nodes, {"a": weights(4, 4)}))
    inside = ["cell (old) (W)", "cell (old) > body > Gemm", "elsewhere"]
    assert steps_of(model, inside)[1].layers == tuple(inside[:2])
