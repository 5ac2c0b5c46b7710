"""Every kind of layer inside If, Loop and Scan is known of as much as in the main graph."""

import numpy as np
import pytest
from nested_models import body, info
from onnx import TensorProto, helper
from small_models import as_node, make_model, tensor, weights
from test_nested_layers import Seen

import onnx_sipp
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model

STEPS = 3

# The node, its constants, and the shape of its activation a.
KINDS = {
    "MatMul": (("MatMul", "a w", "p"), {"w": weights(4, 3)}, (2, 4)),
    "MatMul of rank 3": (("MatMul", "a w", "p"), {"w": weights(4, 3)}, (2, 5, 4)),
    "MatMul, left": (("MatMul", "w a", "p"), {"w": weights(3, 4)}, (4, 2)),
    "MatMul, batched": (("MatMul", "a w", "p"), {"w": weights(2, 4, 3)}, (2, 5, 4)),
    "MatMul, batched, broadcast": (("MatMul", "a w", "p"), {"w": weights(2, 4, 3)}, (5, 4)),
    "MatMul, vector": (("MatMul", "a w", "p"), {"w": weights(4)}, (2, 4)),
    "Gemm": (("Gemm", "a w b", "p"), {"w": weights(4, 3), "b": weights(3)}, (2, 4)),
    "Gemm, turned": (
        ("Gemm", "a w b", "p", {"transA": 1, "transB": 1, "alpha": 0.5}),
        {"w": weights(3, 4), "b": weights(3)},
        (4, 2),
    ),
    "Gemm, left": (("Gemm", "w a", "p"), {"w": weights(3, 4)}, (4, 2)),
    "Gemm, left, turned": (
        ("Gemm", "w a", "p", {"transA": 1, "transB": 1}),
        {"w": weights(4, 3)},
        (2, 4),
    ),
    "Conv": (
        ("Conv", "a w b", "p", {"pads": [1, 0, 0, 1], "strides": [1, 2], "dilations": [2, 1]}),
        {"w": weights(3, 2, 2, 2), "b": weights(3)},
        (2, 2, 5, 4),
    ),
    "Conv, groups": (("Conv", "a w", "p", {"group": 2}), {"w": weights(4, 2, 3)}, (1, 4, 6)),
    "ConvTranspose": (
        ("ConvTranspose", "a w", "p", {"strides": [2]}),
        {"w": weights(2, 3, 3)},
        (1, 2, 4),
    ),
    "LSTM": (
        ("LSTM", "a w r", "p", {"hidden_size": 3}),
        {"w": weights(1, 12, 4), "r": weights(1, 12, 3, seed=1)},
        (5, 2, 4),
    ),
}


def plain(kind):
    """The layer by itself, without a bias that could take up the means."""
    node, constants, shape = KINDS[kind]
    layer = with_name(node)
    if kind != "LSTM":
        del layer.input[2:]
    return make_model(
        [("Identity", "x", "a"), layer, ("ReduceSum", "p", "y", {"keepdims": 0})],
        constants, inputs={"x": list(shape)},
    )  # fmt: skip


def with_name(node):
    made = as_node(node)
    made.name = "layer"
    return made


def model_of(nodes, constants, shape):
    return make_model(nodes, constants, inputs={"x": list(shape)})


def in_if(kind):
    """The layer where the sum of x is positive; else nothing of that sort."""
    node, constants, shape = KINDS[kind]
    then = [("Identity", "x", "a"), with_name(node), ("ReduceSum", "p", "s", {"keepdims": 0})]
    choice = helper.make_node(
        "If", ["c"], ["y"], name="in",
        then_branch=body(then, ["s"], constants),
        else_branch=body([("ReduceMax", "x", "m", {"keepdims": 0})], ["m"]),
    )  # fmt: skip
    nodes = [("ReduceSum", "x", "sum", {"keepdims": 0}), ("Greater", "sum nil", "c"), choice]
    return model_of(nodes, {"nil": np.zeros((), np.float32)}, shape)


def in_loop(kind):
    """The layer on x, -x / 2, x / 4."""
    node, constants, shape = KINDS[kind]
    inner = body(
        [
            ("Identity", "s", "a"),
            with_name(node),
            ("ReduceSum", "p", "o", {"keepdims": 0}),
            ("Mul", "s half", "t"),
            ("Identity", "go", "on"),
        ],
        [info("on", [], TensorProto.BOOL), info("t", list(shape)), info("o", [])],
        constants | {"half": np.array(-0.5, np.float32)},
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL),
         info("s", list(shape))],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["trips", "", "x"], ["e", "y"], name="in", body=inner)
    return model_of([loop], {"trips": np.array(STEPS)}, shape)


def in_scan(kind):
    """The layer on every x_t along a new first axis."""
    node, constants, shape = KINDS[kind]
    inner = body(
        [("Identity", "f", "a"), with_name(node), ("ReduceSum", "p", "o", {"keepdims": 0}),
         ("Identity", "s", "t")],
        [info("t", [1]), info("o", [])], constants, [info("s", [1]), info("f", list(shape))],
    )  # fmt: skip
    scan = helper.make_node(
        "Scan", ["z", "x"], ["e", "y"], name="in", body=inner, num_scan_inputs=1
    )
    return model_of([scan], {"z": np.zeros(1, np.float32)}, (STEPS, *shape))


def feeds(values):
    return [{"x": np.ascontiguousarray(value)} for value in values]


WHERE = {"If": in_if, "Loop": in_loop, "Scan": in_scan}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", WHERE)
def test_the_same_is_known_inside(kind, where):
    shape = KINDS[kind][2]
    x = weights(6, *shape, seed=9)
    if where == "If":
        data, inside = x, [value for value in x if value.sum() > 0]
        assert 0 < len(inside) < len(x)
    elif where == "Loop":
        data, inside = x, [value * np.float32(-0.5) ** t for value in x for t in range(STEPS)]
    else:
        data = np.ascontiguousarray(x.reshape(2, STEPS, *shape))
        inside = list(x)
    nested, flat = Seen(WHERE[where](kind), feeds(data)), Seen(plain(kind), feeds(inside))
    assert len(nested.evidence) == len(flat.evidence) == (2 if kind == "LSTM" else 1)
    path = {"If": "in > then_branch > ", "Loop": "in > body > ", "Scan": "in > body > "}[where]
    for name, known in flat.evidence.items():
        found = nested.evidence[path + name]
        assert found.fit.count == known.fit.count > 0
        for part in ("gram", "cross"):
            mine, other = (getattr(evidence.fit, part) for evidence in (found, known))
            np.testing.assert_allclose(mine, other, rtol=2e-3, atol=2e-4)
        mine, other = nested.statistics[path + name], flat.statistics[name]
        np.testing.assert_allclose(mine.sensitivity_max, other.sensitivity_max, atol=1e-4)
        np.testing.assert_allclose(mine.second_moment, other.second_moment, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", WHERE)
def test_it_is_pruned_to_the_weight(kind, where):
    _, constants, shape = KINDS[kind]
    shape = (STEPS, *shape) if where == "Scan" else shape
    result = onnx_sipp.prune(WHERE[where](kind), feeds(weights(8, *shape, seed=9)), sparsity=0.5)
    size = sum(constants[name].size for name in ("w", "r") if name in constants)
    assert (result.report.prunable, result.report.zeros) == (size, size // 2)
    lowered = lower(Model.load(result.model))
    zeros = [int((lowered.read(layer.weight) == 0).sum()) for layer in find_layers(lowered).layers]
    assert sum(zeros) == size // 2


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_in_a_branch(dtype):
    model = in_if("MatMul")
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    (choice,) = (node for node in model.graph.node if node.op_type == "If")
    (then,) = (a.g for a in choice.attribute if a.name == "then_branch")
    for graph in (model.graph, then):
        for stored in graph.initializer:
            values = weights(4, 3) if stored.name == "w" else np.zeros(())
            stored.CopyFrom(tensor(stored.name, values.astype(dtype)))
    model.graph.input[0].type.tensor_type.elem_type = kind
    model.graph.output[0].type.tensor_type.elem_type = kind
    x = weights(8, 2, 4, seed=9).astype(dtype)
    result = onnx_sipp.prune(model, feeds(x), sparsity=0.5)
    assert result.report.zeros == 6


def growing_loop(node, constants, grown):
    """A state that gets longer with every iteration, and a layer on it."""
    inner = body(
        [("Concat", "s x", "t", {"axis": -1}), with_name(node),
         ("ReduceSum", "p", "o", {"keepdims": 0}), ("Identity", "go", "on")],
        [info("on", [], TensorProto.BOOL), info("t", None), info("o", [])], constants,
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("s", None)],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["trips", "", "x"], ["e", "y"], name="in", body=inner)
    return make_model([loop], {"trips": np.array(STEPS)}, inputs={"x": grown})


def test_rows_that_become_more_are_collected():
    """``[n, 4]`` with n = 2, 4, 6: as columns, of a Gemm with transA."""
    node = ("Gemm", "s w", "p", {"transA": 1})
    model = growing_loop(node, {"w": weights(4, 3)}, [4, 2])
    x = weights(5, 4, 2, seed=9)
    nested = Seen(model, feeds(x))
    found = nested.evidence["in > body > layer"].fit
    assert found.count == 5 * (2 + 4 + 6)
    rows = np.concatenate(
        [np.concatenate([value.T] * (t + 1)) for value in x for t in range(STEPS)]
    )
    np.testing.assert_allclose(found.gram[0], rows.T @ rows / len(rows), rtol=1e-4)
    assert not nested.lowered.plan.unwatched


def test_images_that_grow_cannot_be_watched():
    """They are pruned by magnitude, and the report says why."""
    model = growing_loop(("Conv", "s w", "p"), {"w": weights(3, 2, 2)}, [1, 2, 3])
    result = onnx_sipp.prune(model, feeds(weights(8, 1, 2, 3, seed=9)), sparsity=0.5)
    (layer,) = result.report.layers
    assert (layer.observed, layer.zeros) == (False, 6)
    (warning,) = (text for text in result.report.warnings if "in > body > layer" in text)
    assert warning.startswith("what these layers multiply has another shape in every iteration")
    assert result.report.outputs[0].relative_error < 1


def test_a_loop_without_iterations():
    """For some samples there are none, for others some."""
    for kind in ("MatMul", "Conv"):
        model = in_loop(kind)
        shape = KINDS[kind][2]
        del model.graph.initializer[:]
        model.graph.input.append(helper.make_tensor_value_info("trips", TensorProto.INT64, []))
        x = weights(6, *shape, seed=9)
        data = [feed | {"trips": np.array(2 * (i % 2))} for i, feed in enumerate(feeds(x))]
        nested = Seen(model, data)
        inside = [v * np.float32(-0.5) ** t for v in x[1::2] for t in range(2)]
        found = nested.evidence["in > body > layer"].fit
        known = Seen(plain(kind), feeds(inside)).evidence["layer"].fit
        assert found.count == known.count
        np.testing.assert_allclose(found.gram, known.gram, rtol=1e-3, atol=1e-4)


def test_the_pruned_model_may_take_another_branch():
    """Samples for which it does so count as the dense model has them."""
    then = body([("MatMul", "h w", "z", {"name": "inside"})], ["z"])
    other = body([("Neg", "h", "n"), ("MatMul", "n w2", "z", {"name": "outside"})], ["z"])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    model = make_model(
        [
            ("MatMul", "x v", "h", {"name": "first"}),
            ("ReduceSum", "h", "s", {"keepdims": 0}),
            ("Greater", "s nil", "c"),
            choice,
        ],
        {"v": weights(4, 5), "w": weights(5, 3, seed=1), "w2": weights(5, 3, seed=2),
         "nil": np.zeros((), np.float32)},
        inputs={"x": [1, 4]},
    )  # fmt: skip
    x = weights(60, 4, seed=9)
    result = onnx_sipp.prune(model, x, sparsity=0.7)
    assert result.report.zeros == 35
    dense = Model.load(model).read("v")
    pruned = Model.load(result.model).read("v")
    turns = np.mean(((x @ dense).sum(1) > 0) != ((x @ pruned).sum(1) > 0))
    assert turns > 0
    assert all(layer.observed for layer in result.report.layers)
