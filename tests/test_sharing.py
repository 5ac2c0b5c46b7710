"""Several layers on one stored constant, and constants that something else reads too."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from small_models import make_model, weights

import onnx_sipp
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model

W = weights(4, 4, seed=1)
RNG = np.random.default_rng(0)
DATA = (RNG.standard_normal((40, 3)) @ RNG.standard_normal((3, 4))).astype(np.float32)
DATA += weights(40, 4, seed=5) * np.float32(0.2)
PLACES = {f"i{n}": np.array([n]) for n in (0, 1, 2, 4, 6, 8)}


def prune(proto, data=DATA, **options):
    return onnx_sipp.prune(proto, data, **{"sparsity": 0.5, "threads": 1, **options})


def stored(proto, name):
    (tensor,) = (t for t in proto.graph.initializer if t.name == name)
    return onnx.numpy_helper.to_array(tensor)


def find(proto, **options):
    return find_layers(lower(Model.load(proto)), **options)


def two_layers(route, second, constants=None):
    """A layer on w, and another one on what a route makes of it."""
    nodes = [("MatMul", "x w", "h", {"name": "first"}), ("Tanh", "h", "t"), *route, second]
    return make_model(nodes, {"w": W, **PLACES, **(constants or {})})


# --- one mask from summed statistics ----------------------------------------------------------


def test_the_same_matrix_by_another_route():
    """Turned round twice is not turned round at all: both layers see the same neurons."""
    routed = two_layers([("Transpose", "w", "k")], ("Gemm", "t k", "y", {"transB": 1}))
    plain = two_layers([], ("MatMul", "t w", "y"))
    results = [prune(proto) for proto in (routed, plain)]
    np.testing.assert_allclose(*(stored(r.model, "w") for r in results), atol=1e-5)
    for result in results:
        assert [row.shares_weight_with for row in result.report.layers] == ["", "first"]
        assert (result.report.prunable, result.report.zeros) == (16, 8)
        assert not any("in different ways" in warning for warning in result.report.warnings)
    first, second = results[0].masks.values()
    np.testing.assert_array_equal(first, second.T)


def test_the_matrix_turned_round_by_a_route():
    routed = two_layers([("Transpose", "w", "k")], ("MatMul", "t k", "y"))
    plain = two_layers([], ("Gemm", "t w", "y", {"transB": 1}))
    results = [prune(proto) for proto in (routed, plain)]
    np.testing.assert_allclose(*(stored(r.model, "w") for r in results), atol=1e-5)
    for result in results:
        assert (result.report.prunable, result.report.zeros) == (16, 8)
        assert any("in different ways" in warning for warning in result.report.warnings)
    first, second = results[0].masks.values()
    np.testing.assert_array_equal(first, second.T)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sipp-det", "sipp-rand", "sipp-hybrid"])
def test_every_method_shares(method):
    result = prune(two_layers([("Transpose", "w", "k")], ("MatMul", "t k", "y")), method=method)
    kept = stored(result.model, "w") != 0
    first, second = result.masks.values()
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(second, kept.T)
    assert result.report.zeros == 8


def test_three_different_routes():
    """The elements of w in another shape are the same elements."""
    route = [
        ("Slice", "w i0 i2 i1", "k"),
        ("Slice", "w i2 i4 i1", "l"),
        ("Concat", "l k", "m", {"axis": 1}),
    ]
    proto = two_layers(route, ("MatMul", "t m", "y"))
    found = find(proto)
    assert (len(found.layers), found.prunable) == (2, 16)
    result = prune(proto)
    kept = stored(result.model, "w") != 0
    assert kept.sum() == 8
    np.testing.assert_array_equal(result.masks["MatMul#5"], np.roll(kept, 2, axis=1))


# --- parts of one constant --------------------------------------------------------------------


def packed():
    """Three projections of one input whose weights lie in one constant."""
    weight = weights(4, 12, seed=2)
    nodes = [
        ("Split", "w", "q k v", {"axis": 1}),
        *((("MatMul", f"x {n}", f"{n}x")) for n in "qkv"),
        ("Add", "qx kx", "s"),
        ("Mul", "s vx", "y"),
    ]
    parts = dict(zip("qkv", np.split(weight, 3, axis=1), strict=True))
    return make_model(nodes, {"w": weight}), make_model(nodes[1:], parts)


def test_parts_that_have_nothing_in_common_are_weights_of_their_own():
    routed, plain = packed()
    results = [prune(proto) for proto in (routed, plain)]
    expected = np.concatenate([stored(results[1].model, name) for name in "qkv"], axis=1)
    np.testing.assert_allclose(stored(results[0].model, "w"), expected, atol=1e-5)
    report = results[0].report
    assert (report.prunable, report.zeros) == (48, 24)
    assert [row.shares_weight_with for row in report.layers] == ["", "", ""]
    assert {row.weight for row in report.layers} == {"w"}


def test_parts_that_overlap_are_left_alone():
    nodes = [
        ("Slice", "w i0 i4 i0", "k"),
        ("Slice", "w i2 i6 i0", "l"),
        ("MatMul", "x k", "h", {"name": "first"}),
        ("MatMul", "h l", "s", {"name": "second"}),
        ("MatMul", "s v", "y", {"name": "third"}),
    ]
    found = find(make_model(nodes, {"w": weights(6, 4), "v": W, **PLACES}))
    assert [layer.name for layer in found.layers] == ["third"]
    assert [(skip.name, skip.reason) for skip in found.skipped] == [
        ("first", "its weight is in part that of 'second'"),
        ("second", "its weight is in part that of 'first'"),
    ]


@pytest.mark.parametrize(("start", "alone"), [("i4", True), ("i2", False)])
def test_only_the_elements_of_the_weight_matter(start, alone):
    """Something else reads rows of the same constant."""
    nodes = [
        ("Slice", "w i0 i4 i0", "k"),
        ("MatMul", "x k", "h", {"name": "first"}),
        ("Slice", f"w {start} i8 i0", "l"),
        ("ReduceSum", "l i0", "s"),
        ("Add", "h s", "y", {"name": "add"}),
    ]
    weight = weights(8, 4)
    proto = make_model(nodes, {"w": weight, **PLACES})
    found = find(proto)
    assert len(found.layers) == alone
    if not alone:
        reason = "its weight 'k' is also read by Add 'add' via Slice, ReduceSum"
        assert found.skipped[0].reason.startswith(reason)
        return
    result = prune(proto)
    after = stored(result.model, "w")
    np.testing.assert_array_equal(after[4:], weight[4:])
    assert int((after == 0).sum()) == 8


# --- read by others ---------------------------------------------------------------------------

TABLE = weights(5, 4, seed=3)
IDS = {"ids": RNG.integers(0, 5, (30, 1))}


def tied():
    """A language model in small: the table is looked up, and turned round at the end."""
    nodes = [
        ("Gather", "w ids", "x", {"name": "lookup"}),
        ("MatMul", "x v", "h", {"name": "middle"}),
        ("Transpose", "w", "k"),
        ("MatMul", "h k", "y", {"name": "head"}),
    ]
    model = make_model(nodes, {"w": TABLE, "v": W}, {"ids": ["n", 1]})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    return model


def test_a_tied_embedding_is_left_alone():
    result = prune(tied(), IDS)
    assert [row.name for row in result.report.layers] == ["middle"]
    reasons = {skip.name: skip.reason for skip in result.report.skipped}
    assert reasons["head"] == (
        "its weight 'k' is also read by Gather 'lookup' (see --include-tied)"
    )
    np.testing.assert_array_equal(stored(result.model, "w"), TABLE)


def test_a_tied_embedding_is_pruned_on_demand():
    result = prune(tied(), IDS, include_tied=True)
    assert [row.name for row in result.report.layers] == ["middle", "head"]
    assert result.report.layers[1].also_read_by == "Gather 'lookup'"
    assert (result.report.prunable, result.report.zeros) == (36, 18)
    zeros = [int((stored(result.model, name) == 0).sum()) for name in "wv"]
    assert sum(zeros) == 18
    assert zeros[0] > 0
    (warning,) = (w for w in result.report.warnings if "also read by" in w)
    assert warning.startswith("the weight 'w' of 'head' is also read by Gather 'lookup'")
    rows = onnx_sipp.inspect(tied(), include_tied=True).layers
    assert [row.also_read_by for row in rows] == ["", "Gather 'lookup'"]


@pytest.mark.parametrize("excluded", ["lookup", "head"])
def test_what_the_user_excludes_is_left_alone_even_so(excluded):
    found = find(tied(), exclude_nodes=[excluded], include_tied=True)
    assert [layer.name for layer in found.layers] == ["middle"]


def test_one_layer_of_a_shared_weight_excluded():
    proto = two_layers([], ("MatMul", "t w", "y", {"name": "second"}))
    found = find(proto, exclude_nodes=["second"], include_tied=True)
    assert not found.layers
    assert [skip.reason for skip in found.skipped] == [
        "its weight 'w' is also read by MatMul 'second', excluded by the user",
        "excluded by the user",
    ]


def test_an_output_of_the_graph():
    nodes = [("MatMul", "x w", "y", {"name": "m"}), ("Identity", "w", "z")]
    proto = make_model(nodes, {"w": W}, outputs=["y", "z"])
    (skip,) = find(proto).skipped
    assert "the graph's output via Identity" in skip.reason
    result = prune(proto, include_tied=True)
    assert result.report.zeros == 8


# --- copies -----------------------------------------------------------------------------------


def test_equal_constants_stay_separate():
    nodes = [("MatMul", "x w", "h"), ("Tanh", "h", "t"), ("MatMul", "t v", "y")]
    result = prune(make_model(nodes, {"w": W, "v": W.copy()}))
    assert (result.report.prunable, result.report.zeros) == (32, 16)
    assert [row.shares_weight_with for row in result.report.layers] == ["", ""]
    assert not np.array_equal(stored(result.model, "w"), stored(result.model, "v"))
