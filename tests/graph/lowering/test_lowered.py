"""The lowered model: what is written to it reaches the original, and everything that reads it."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from small_models import constant, make_model, save_external, weights

from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.lowering.flatten import flatten
from onnx_sipp.graph.lowering.rules import RULES
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import Label, NotPrunable
from onnx_sipp.store import TensorStore

W = weights(4, 6)
X = weights(3, 4, seed=1)
TURNED = [("Transpose", "w", "t"), ("MatMul", "x t", "h"), ("MatMul", "h w", "y")]


def turned():
    """One constant, read by a layer directly and by another one turned round."""
    return make_model(TURNED, {"w": W.T.copy()})


def run(data):
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]


def stored(proto, name="w"):
    (tensor,) = (t for t in proto.graph.initializer if t.name == name)
    return onnx.numpy_helper.to_array(tensor)


def test_it_computes_what_the_original_computes():
    lowered = lower(Model.load(turned()))
    np.testing.assert_allclose(run(lowered.runnable()[0]), X @ W @ W.T, rtol=1e-4)
    assert [node.op_type for node in lowered.proto.graph.node] == ["MatMul", "MatMul"]
    assert [label.name for label in lowered.plan.labels] == ["MatMul#1", "MatMul#2"]


@pytest.mark.parametrize("by_route", [True, False])
def test_what_is_written_arrives_everywhere(by_route):
    model = Model.load(turned())
    lowered = lower(model)
    first, second = (layer.weight for layer in find_layers(lowered).layers)
    new = weights(4, 6, seed=9)
    new[0] = 0
    lowered.replace(*((first, new) if by_route else (second, new.T.copy())))
    np.testing.assert_array_equal(lowered.read(first), new)
    np.testing.assert_array_equal(lowered.read(second), new.T)
    result = lowered.result()
    np.testing.assert_array_equal(stored(result.proto), new.T)
    np.testing.assert_allclose(run(result.runnable()[0]), run(lowered.runnable()[0]), rtol=1e-5)
    np.testing.assert_array_equal(model.read("w"), W.T)  # the original is not changed


def test_copies_are_independent():
    lowered = lower(Model.load(turned()))
    copy = lowered.copy()
    (first, _) = (layer.weight for layer in find_layers(lowered).layers)
    copy.replace(first, np.zeros_like(W))
    np.testing.assert_array_equal(lowered.read(first), W)
    np.testing.assert_array_equal(lowered.result().read("w"), W.T)
    assert not copy.copy().result().read("w").any()


def test_external_data(tmp_path):
    path = save_external(turned(), tmp_path / "in.onnx")
    lowered = lower(Model.load(path))
    first, second = (layer.weight for layer in find_layers(lowered).layers)
    assert lowered.route(first) == "initializer, external data via Transpose"
    lowered.replace(first, 2 * W)
    np.testing.assert_array_equal(lowered.read(second), 2 * W.T)
    lowered.result().save(tmp_path / "out.onnx")
    np.testing.assert_array_equal(stored(onnx.load(tmp_path / "out.onnx")), 2 * W.T)


def test_constants_of_every_form():
    nodes = [
        constant("a", W),
        helper.make_node("Constant", [], ["b"], value_floats=[1.0, 2, 3, 4, 5, 6]),
        helper.make_node("Constant", [], ["c"], value_float=3.0),
        helper.make_node("Constant", [], ["d"], value_ints=[4, 6]),
        helper.make_node("Constant", [], ["e"], value_int=7),
        ("MatMul", "x a", "h"),
        ("Add", "h b", "i"),
        ("Mul", "i c", "j"),
        ("Cast", "e", "k", {"to": 1}),
        ("Expand", "k d", "l"),
        ("MatMul", "j m", "n"),
        ("Add", "n k", "y"),
        ("Transpose", "l", "m"),
    ]
    model = Model.load(make_model(nodes, {}))
    lowered = lower(model)
    expected = run(model.runnable()[0])
    np.testing.assert_allclose(run(lowered.runnable()[0]), expected, rtol=1e-5)
    lowered.replace("b", np.zeros(6, np.float32))
    lowered.replace("c", np.float32(1))
    result = lowered.result().proto
    values = {
        n.output[0]: helper.get_attribute_value(n.attribute[0]) for n in result.graph.node[:5]
    }
    assert (list(values["b"]), values["c"], list(values["d"]), values["e"]) == (
        [0] * 6,
        1,
        [4, 6],
        7,
    )
    assert len(result.graph.node) == len(nodes)


def test_sources_and_names():
    nodes = [
        ("Concat", "a b", "t", {"axis": 0}),
        ("MatMul", "x t", "h"),
        constant("c", W.T),
        ("MatMul", "h c", "y"),
    ]
    lowered = lower(Model.load(make_model(nodes, {"a": W[:2].copy(), "b": W[2:].copy()})))
    first, second = (layer.weight for layer in find_layers(lowered).layers)
    assert (lowered.called(first), lowered.called(second)) == ("t", "c")
    assert (lowered.weight_name(first), lowered.weight_name(second)) == ("a, b", "c")
    assert lowered.route(first) == "initializer via Concat"
    assert lowered.route(second) == "Constant node"
    assert lowered.first_element(first) == int(lowered.elements(first).min())


# --- what rules ask ------------------------------------------------------------------------------


def builder_of(*nodes, **constants):
    model = make_model([*nodes, ("MatMul", "x w", "y", {"name": "m"})], {"w": W, **constants})
    builder = Builder(flatten(Model.load(model)), {})
    return builder, Label("m", "MatMul")


def test_a_part_of_an_operand():
    builder, label = builder_of()
    with builder.at(label):
        name = builder.weight("w", np.array([[6, 0], [1, 7]]))
        rest = builder.weight("w", np.array([2, 3]))
    assert builder.constants.virtual[name].ids.tolist() == [[7, 1], [2, 8]]
    assert builder.constants.virtual[rest].owner == "m"
    assert len({name, rest, "w"}) == 3
    with pytest.raises(NotPrunable, match="more than once"):
        builder.weight("w", np.array([0, 0]))


def test_integers_that_the_node_dequantises():
    levels = np.arange(-12, 12).reshape(4, 6).astype(np.int8)
    builder, _ = builder_of(q=levels)
    with pytest.raises(NotPrunable, match="not floating point"):
        builder.weight("q")
    name = builder.weight("q", scale=np.full(6, 0.5, np.float32), zero_point=np.int8(2), axis=-1)
    values = builder.constants.virtual[name].decode(
        builder.constants.numbering, builder.model.sites.read
    )
    np.testing.assert_array_equal(values, (levels.astype(np.float32) - 2) * 0.5)
    name = builder.weight("q", np.array([23, 0]), zero_point=np.arange(6), axis=1)
    values = builder.constants.virtual[name].decode(
        builder.constants.numbering, builder.model.sites.read
    )
    assert values.tolist() == [6, -12]
    with pytest.raises(NotPrunable, match="should be integers"):
        builder.weight("w", zero_point=np.int8(2))


def test_names_are_fresh():
    builder, label = builder_of()
    with builder.at(label):
        assert builder.fresh("new") == "new"
        assert builder.fresh("new") == "new/1"
        assert builder.fresh("y") == "y/1"
        node = builder.node("Split", ["x"], 2, axis=0)
        assert node.output == ["m/Split", "m/Split/1"]
        assert builder.constant(np.array([3])) == "constant"
    assert builder.value("constant").tolist() == [3]
    assert builder.is_constant("constant")
    assert not builder.is_constant("x")
    assert builder.opset == 17


def test_what_a_rule_makes_is_labelled_and_run(monkeypatch):
    """A rule that makes two layers of a MatMul, one of each half of its weight."""

    def halves(node, builder):
        left, right = (
            builder.node("MatMul", [node.input[0], builder.weight(node.input[1], places)])
            for places in np.split(np.arange(24).reshape(4, 6), 2, axis=1)
        )
        join = builder.node("Concat", [left.output[0], right.output[0]], list(node.output), axis=-1)
        return [builder.named(left, "left"), builder.named(right, "right"), join]

    monkeypatch.setitem(RULES, ("", "MatMul"), halves)
    model = Model.load(make_model([("MatMul", "x w", "y", {"name": "m"})], {"w": W}))
    lowered = lower(model)
    found = find_layers(lowered)
    assert [(layer.name, layer.op_type) for layer in found.layers] == [
        ("m (left)", "MatMul"),
        ("m (right)", "MatMul"),
    ]
    assert (found.prunable, found.skipped) == (24, ())
    np.testing.assert_allclose(run(lowered.runnable()[0]), X @ W, rtol=1e-5)
    excluded = find_layers(lowered, exclude_nodes=["m"])
    assert [skip.reason for skip in excluded.skipped] == ["excluded by the user"] * 2
    (left,) = find_layers(lowered, exclude_nodes=["*right*"]).layers
    lowered.replace(left.weight, np.zeros((4, 3), np.float32))
    after = lowered.result().read("w")
    assert not after[:, :3].any()
    np.testing.assert_array_equal(after[:, 3:], W[:, 3:])


# --- parts of constants in external data ---------------------------------------------------------


@pytest.mark.parametrize("proto", [turned(), make_model([("MatMul", "x w", "y")], {"w": W})])
def test_parts_reach_the_original_and_every_reader(tmp_path, proto):
    path = save_external(proto, tmp_path / "m.onnx")
    lowered = lower(Model.load(path))
    layer = find_layers(lowered).layers[0]
    before = lowered.read(layer.weight).copy()
    store = TensorStore(0, tmp_path)
    changed, expected = lowered.copy(store), before.copy()
    for rows in (slice(0, 2), slice(3, 4)):
        changed.replace_slab(layer.weight, 1, rows.start, 2 * before[:, rows])
        expected[:, rows] *= 2
    np.testing.assert_array_equal(changed.read(layer.weight), expected)
    np.testing.assert_array_equal(lowered.read(layer.weight), before)
    result = changed.result()
    inlined = result.inlined().SerializeToString()
    lowered_proto = changed.inlined().SerializeToString()
    np.testing.assert_allclose(run(inlined), run(lowered_proto), rtol=1e-6)
    again = changed.copy()
    again.replace_slab(layer.weight, 1, 0, before[:, :1])
    np.testing.assert_array_equal(changed.read(layer.weight), expected)
    twin = changed.plan.original.stored["w"]
    stays = result.read("w") if expected.shape == tuple(twin.dims) else result.read("w").T
    np.testing.assert_array_equal(stays, expected)


def test_parts_reach_other_readers_of_the_same_data(tmp_path):
    nodes = [
        ("MatMul", "x w", "a"),
        ("Transpose", "w", "t", {"perm": [1, 0]}),
        ("MatMul", "z t", "b"),
    ]
    made = make_model(nodes, {"w": W}, {"x": ["n", 4], "z": ["n", W.shape[1]]})
    lowered = lower(Model.load(save_external(made, tmp_path / "m.onnx")))
    changed, expected = lowered.copy(TensorStore(0, tmp_path)), W.copy()
    changed.replace_slab("w", 1, 1, -W[:, 1:3])
    expected[:, 1:3] *= -1
    np.testing.assert_array_equal(changed.read("w"), expected)
    np.testing.assert_array_equal(changed.result().read("w"), expected)
    (other,) = {layer.weight for layer in find_layers(changed).layers} - {"w"}
    np.testing.assert_array_equal(changed.read(other), expected.T)


def test_external_data_that_is_replaced_is_kept_once(tmp_path):
    path = save_external(make_model([("MatMul", "x w", "y")], {"w": W}), tmp_path / "m.onnx")
    changed = lower(Model.load(path)).copy(TensorStore(0, tmp_path))
    changed.replace("w", -W)
    result = changed.result()
    kept = [p for p in tmp_path.rglob("*") if p.is_file() and p.parent.name.startswith("onnx-sipp")]
    assert len(kept) == 1
    np.testing.assert_array_equal(result.read("w"), -W)
