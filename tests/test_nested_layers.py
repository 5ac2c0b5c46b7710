"""Layers inside functions and subgraphs are pruned as those of the main graph are."""

import numpy as np
import onnx
import pytest
from nested_models import (
    B1,
    B2,
    CONSTANTS,
    TWO_LAYERS,
    W1,
    W2,
    body,
    call,
    flat_model,
    function,
    if_model,
    loop_model,
    of_shape,
    scan_model,
)
from onnx import TensorProto, helper
from onnx.numpy_helper import to_array
from small_models import constant, make_model, weights

import onnx_sipp
from onnx_sipp.calibration.branches import lower_as_run
from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.observe import Observation
from onnx_sipp.calibration.samples import open_samples
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.walk import all_sites
from onnx_sipp.measures import measure_statistics
from onnx_sipp.progress import Silent
from onnx_sipp.refitting.refitter import Refitter
from onnx_sipp.store import TensorStore
from onnx_sipp.weight_groups import group_weights

X = weights(80, 4, seed=9)
SHAPES = [(4, 6), (6,), (6, 3), (3,)]


def in_two_functions():
    """The second layer in a function that the first function calls."""
    outer = function(
        "Both", "x w1 b1", "y",
        [
            ("Gemm", "x w1 b1", "h"),
            ("Relu", "h", "r"),
            call("Second", "r", "y"),
        ],
    )  # fmt: skip
    inner = function(
        "Second", "r", "y",
        [constant("w2", W2), constant("b2", B2), ("MatMul", "r w2", "m"), ("Add", "m b2", "y")],
    )  # fmt: skip
    return make_model(
        [call("Both", "x w1 b1", "y")], {"w1": W1, "b1": B1}, outputs={"y": ["n", 3]},
        functions=[outer, inner], domains=["local"],
    )  # fmt: skip


def by_attributes():
    """A function whose weight is an attribute of its call, another one's a default."""
    weight = onnx.NodeProto(op_type="Constant", output=["w"])
    weight.attribute.add(name="value", ref_attr_name="kernel", type=onnx.AttributeProto.TENSOR)
    product = onnx.NodeProto(op_type="Gemm", input=["x", "w", "b"], output=["y"])
    product.attribute.add(name="transB", ref_attr_name="turned", type=onnx.AttributeProto.INT)
    linear = function(
        "Linear", "x b", "y", [weight, product], ["kernel"], [helper.make_attribute("turned", 0)]
    )
    first, second = helper.make_tensor("", 1, W1.shape, W1), helper.make_tensor("", 1, (3, 6), W2.T)
    return make_model(
        [
            call("Linear", "x b1", "h", kernel=first),
            ("Relu", "h", "r"),
            call("Linear", "r b2", "y", kernel=second, turned=1),
        ],
        {"b1": B1, "b2": B2}, outputs={"y": ["n", 3]}, functions=[linear], domains=["local"],
    )  # fmt: skip


def if_in_function():
    """An If with a constant condition in a function."""
    node = helper.make_node(
        "If", ["yes"], ["y"],
        then_branch=body(TWO_LAYERS, ["y"], CONSTANTS),
        else_branch=body([constant("z", np.zeros((1, 3), np.float32))], ["z"]),
    )  # fmt: skip
    maker = function("Choice", "x", "y", [constant("yes", np.array([True])), node])
    return make_model(
        [call("Choice", "x", "y")], {}, outputs={"y": ["n", 3]}, functions=[maker],
        domains=["local"],
    )  # fmt: skip


def taken_by_all_samples():
    """An If that no sample takes otherwise, by its value."""
    return if_model(
        "many", {"axes": np.array([0, 1]), "limit": np.array(-1e6, np.float32)},
        [("ReduceMin", "x", "least", {"keepdims": 0}), ("Greater", "least limit", "many")],
    )  # fmt: skip


def if_in_if():
    """An If in the branch that another one always takes, its condition computed there."""
    model = taken_by_all_samples()
    (outer,) = (node for node in model.graph.node if node.op_type == "If")
    (branch,) = (a.g for a in outer.attribute if a.name == "then_branch")
    inner = onnx.NodeProto()
    inner.CopyFrom(outer)
    inner.input[0] = "sure"
    del branch.node[:], branch.initializer[:]
    branch.node.extend([helper.make_node("Less", ["limit", "least"], ["sure"]), inner])
    return model


@pytest.mark.parametrize(
    "make",
    [
        in_two_functions,
        by_attributes,
        lambda: if_model("yes", {"yes": np.array(True)}),
        if_in_function,
        taken_by_all_samples,
        if_in_if,
    ],
    ids=["functions", "attributes", "constant If", "If in function", "observed If", "If in If"],
)
@pytest.mark.parametrize("options", [{}, {"method": "wanda"}], ids=["default", "wanda"])
def test_as_in_the_main_graph(make, options, tmp_path):
    dense = make()
    result = onnx_sipp.prune(dense, X, sparsity=0.5, **options)
    expected = onnx_sipp.prune(flat_model(), X, sparsity=0.5, **options)
    assert result.report.zeros == expected.report.zeros == 21
    assert result.report.prunable == 42
    for name, shape in zip(CONSTANTS, SHAPES, strict=True):
        wanted = of_shape(expected.model, *shape)
        if make is by_attributes and name == "w2":
            wanted = wanted.T
        np.testing.assert_allclose(of_shape(result.model, *wanted.shape), wanted, atol=1e-5)
    errors = [report.report.outputs[0].relative_error for report in (result, expected)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)
    result.save(tmp_path / "out.onnx")
    assert_only_payloads_differ(dense, onnx.load(tmp_path / "out.onnx"))


def assert_only_payloads_differ(before, after):
    before, after = Model.load(before), Model.load(after)
    for model in (before, after):
        for site in all_sites(model.proto):
            if isinstance(site, TensorProto) and tuple(site.dims) in [*SHAPES, (3, 6)]:
                for field in ("raw_data", "float_data"):
                    site.ClearField(field)
    assert before.proto == after.proto


def test_a_function_called_twice_has_one_weight():
    """As a weight that two layers of the main graph share."""
    nodes = [("MatMul", "x w", "p"), ("Tanh", "p", "y")]
    cell = function("Cell", "x", "y", [constant("w", weights(4, 4)), *nodes])
    twice = make_model(
        [call("Cell", "x", "h"), call("Cell", "h", "y")], {}, outputs={"y": ["n", 4]},
        functions=[cell], domains=["local"],
    )  # fmt: skip
    shared = make_model(
        [
            ("MatMul", "x w", "p"),
            ("Tanh", "p", "h"),
            ("MatMul", "h w", "q"),
            ("Tanh", "q", "y"),
        ],
        {"w": weights(4, 4)}, outputs={"y": ["n", 4]},
    )  # fmt: skip
    results = [onnx_sipp.prune(model, X, sparsity=0.5) for model in (twice, shared)]
    assert [result.report.zeros for result in results] == [8, 8]
    assert [layer.name for layer in results[0].report.layers] == [
        "Cell#0 > MatMul#1",
        "Cell#1 > MatMul#1",
    ]
    pruned = [of_shape(result.model, 4, 4) for result in results]
    np.testing.assert_allclose(*pruned, atol=1e-5)
    assert len(results[0].model.functions) == 1


def varying(**options):
    """The two layers where the first feature is positive."""
    return if_model(
        "positive", {"at": np.array(0), "nil": np.zeros(1, np.float32)},
        [("Gather", "x at", "column", {"axis": 1}), ("Greater", "column nil", "positive")],
        **options,
    )  # fmt: skip


class Seen:
    """What calibration tells of the layers of a model, by name."""

    def __init__(self, dense, data):
        loaded, store = Model.load(dense), TensorStore()
        samples = open_samples(
            loaded, data, num_samples=None, seed=0, input_shapes={}, providers=None, hold_out=False
        )
        self.lowered = lower_as_run(loaded, samples.all_feeds(), threads=1, providers=None)
        layers = find_layers(self.lowered).layers
        found = group_weights(self.lowered, layers)
        execution = Execution(samples.inputs, store, 1, None, None)
        how = Observation(execution, self.lowered, samples.calibration, 1, Silent())
        measured = measure_statistics(found, "wanda", how, store)
        evidence = {}
        refitter = Refitter(self.lowered, found, measured, samples, execution, store)
        refitter.survey.run(evidence.__setitem__, Silent())
        names = [w.layers[0].name for w in found]
        self.statistics = {n: m.whole() for n, m in zip(names, measured, strict=True)}
        self.evidence = {name: evidence[index] for index, name in enumerate(names)}


def assert_same(nested, name, rows, weight):
    """That of a layer the same is known as of a MatMul that is fed the given rows."""
    plain = make_model([("MatMul", "x w", "y", {"name": "m"})], {"w": weight},
                       inputs={"x": ["n", len(weight)]})  # fmt: skip
    flat = Seen(plain, rows)
    one, other = nested.statistics[name], flat.statistics["m"]
    np.testing.assert_allclose(one.sensitivity_max, other.sensitivity_max, atol=1e-5)
    np.testing.assert_allclose(one.second_moment, other.second_moment, rtol=1e-5)
    fits = nested.evidence[name].fit, flat.evidence["m"].fit
    assert fits[0].count == fits[1].count == len(rows)
    np.testing.assert_allclose(fits[0].gram[0], rows.T @ rows / len(rows), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fits[0].gram, fits[1].gram, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fits[0].cross, fits[1].cross, rtol=1e-4, atol=1e-6)


def test_a_branch_that_some_samples_take_is_observed_on_those():
    model, taking = varying(), X[X[:, 0] > 0]
    seen = Seen(model, X)
    assert list(seen.statistics) == [
        "choice > then_branch > first",
        "choice > then_branch > second",
    ]
    assert_same(seen, "choice > then_branch > first", taking, W1)
    hidden = np.maximum(taking @ W1 + B1, 0)
    assert_same(seen, "choice > then_branch > second", hidden, W2)
    result = onnx_sipp.prune(model, X, sparsity=0.5)
    assert result.report.zeros == 21
    assert [layer.sparsity > 0 for layer in result.report.layers] == [True, True]


def loop_states(x, weight, trips=5):
    """The states that iterations begin with, and the last one."""
    states = [x]
    for _ in range(trips):
        states.append(np.tanh(states[-1] @ weight + weights(4, seed=6)))
    return states[:-1], states[-1]


@pytest.mark.parametrize("where", ["inside", "outside", "by a route"])
def test_a_loop_is_observed_in_every_iteration(where):
    weight = 0.5 * weights(4, 4, seed=5)
    own = {"c": weights(4, seed=6)}
    model = loop_model({}, own | {"w": weight}) if where == "inside" else loop_model()
    if where == "by a route":
        model = loop_model({"wt": np.ascontiguousarray(weight.T)}, own)
        model.graph.node.insert(0, helper.make_node("Transpose", ["wt"], ["w"]))
    seen = Seen(model, X[:20])
    before, last = loop_states(X[:20], weight)
    # Samples come one after the other, each with all its iterations.
    rows = np.stack(before, axis=1).reshape(-1, 4)
    assert_same(seen, "loop > body > inside", rows, weight)
    assert_same(seen, "after", last, weights(4, 3, seed=7))
    result = onnx_sipp.prune(model, X, sparsity=0.5)
    assert result.report.zeros == 14
    site = of_shape(result.model, 4, 4)
    assert 0 < np.count_nonzero(site == 0) < 16
    assert result.report.outputs[0].relative_error < 0.9


def scan_states(x):
    """The states that steps begin with, and those that they end with."""
    u, w, c = 0.5 * weights(2, 2, seed=5), weights(2, 4, seed=4), weights(2, seed=6)
    before, after = [], []
    state = np.zeros(2, np.float32)
    for row in x:
        before.append(state)
        state = np.tanh(state @ u + w @ row + c)
        after.append(state)
    return np.array(before), np.array(after)


@pytest.mark.parametrize("opset", [8, 17])
def test_a_scan_is_observed_in_every_step(opset):
    model = scan_model(opset)
    x = weights(12, 5, 4, seed=9)
    shape = (12, 5, 1, 4) if opset == 17 else (12, 1, 5, 1, 4)
    data = x.reshape(shape)
    seen = Seen(model, data)
    steps = [scan_states(sample) for sample in x]
    before, after = (np.concatenate([step[side] for step in steps]) for side in (0, 1))
    assert_same(seen, "scan > body > state", before, 0.5 * weights(2, 2, seed=5))
    assert_same(seen, "scan > body > input", x.reshape(-1, 4), weights(2, 4, seed=4).T)
    assert_same(seen, "after", after, weights(2, 3, seed=7))
    result = onnx_sipp.prune(model, data, sparsity=0.5)
    assert result.report.zeros == 9
    assert of_shape(result.model, 2, 4).size == 8


def with_a_branch_never_taken():
    model = if_model("no", {"no": np.array(False)})
    model.graph.node.append(helper.make_node("MatMul", ["x", "v"], ["z"], name="seen"))
    model.graph.output.append(onnx.ValueInfoProto(name="z"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights(4, 5, seed=8), "v"))
    return model


def test_a_branch_that_is_never_taken():
    """Its weights lose the smallest ones, to the share of all; the report says so."""
    result = onnx_sipp.prune(with_a_branch_never_taken(), X, sparsity=0.5)
    report = {layer.name: layer for layer in result.report.layers}
    assert [layer.observed for layer in report.values()] == [True, False, False]
    assert (result.report.zeros, report["seen"].zeros) == (31, 10)
    first = report["choice > then_branch > first"]
    assert first.zeros == 12
    assert first.measured_error != first.measured_error  # NaN
    pruned = of_shape(result.model, 4, 6)
    smallest = np.sort(np.abs(W1), axis=None)[12]
    assert (pruned == np.where(np.abs(W1) >= smallest, W1, 0)).all()
    (warning,) = (text for text in result.report.warnings if "no sample reached" in text)
    assert "choice > then_branch > first, choice > then_branch > second" in warning


@pytest.mark.parametrize("method", ["wanda", "sipp-det", "sipp-rand", "sipp-hybrid"])
def test_unseen_weights_keep_the_share_of_all_with_every_method(method):
    result = onnx_sipp.prune(with_a_branch_never_taken(), X, sparsity=0.5, method=method)
    assert result.report.zeros == 31
    assert [layer.zeros for layer in result.report.layers] == [10, 12, 9]
    magnitude = onnx_sipp.prune(with_a_branch_never_taken(), X, sparsity=0.5, method="magnitude")
    flat = make_model(
        [*TWO_LAYERS, ("MatMul", "x v", "z")], CONSTANTS | {"v": weights(4, 5, seed=8)}
    )  # fmt: skip
    expected = onnx_sipp.prune(flat, X, sparsity=0.5, method="magnitude")
    assert (of_shape(magnitude.model, 4, 6) == of_shape(expected.model, 4, 6)).all()


def test_no_bound_is_given_where_nothing_was_seen():
    result = onnx_sipp.prune(with_a_branch_never_taken(), X, epsilon=0.5, delta=1e-3)
    seen, *unseen = result.report.layers
    assert [layer.zeros for layer in unseen] == [0, 0]
    assert seen.epsilon_worst <= 0.5
    assert [layer.epsilon_worst for layer in unseen] == [np.inf, np.inf]
    assert [layer["epsilon_worst"] for layer in result.report.to_dict()["layers"][1:]] == [None] * 2


@pytest.mark.parametrize(
    "name",
    [
        "choice",
        "choice > then_branch",
        "choice > then_branch > *",
        "choice > then_branch > [fs]*",
        "*branch > first",
    ],
)
def test_what_lies_in_a_node_is_excluded_with_it(name):
    for condition in (np.array(True), np.array(False)):
        model = with_a_branch_never_taken()
        model.graph.initializer[3].CopyFrom(onnx.numpy_helper.from_array(condition, "no"))
        result = onnx_sipp.prune(model, X, sparsity=0.5, exclude_nodes=[name])
        inside = [layer.name for layer in result.report.layers if layer.name != "seen"]
        assert inside == (["choice > then_branch > second"] if name == "*branch > first" else [])
        assert (of_shape(result.model, 4, 6) == W1).all()


def test_a_weight_of_both_branches_is_one():
    """Seen in one of them, it is chosen by that; in the other, it is the same constant."""
    then = body([("MatMul", "x w", "z", {"name": "a"})], ["z"])
    other = body([("Neg", "x", "n"), ("MatMul", "n w", "z", {"name": "b"})], ["z"])
    weight = weights(4, 6)
    for condition in (np.array(True), np.array(False)):
        node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
        model = make_model([node], {"c": condition, "w": weight}, outputs={"y": ["n", 6]})
        result = onnx_sipp.prune(model, X, sparsity=0.5)
        rows = result.report.layers
        assert [row.observed for row in rows] == [True, True]
        assert (result.report.prunable, result.report.zeros) == (24, 12)
        assert sum(bool(row.shares_weight_with) for row in rows) == 1


@pytest.mark.parametrize("make", [in_two_functions, loop_model], ids=["functions", "loop"])
def test_weights_of_bodies_in_external_files(make, tmp_path):
    stored = onnx.ModelProto()
    stored.CopyFrom(make())
    onnx.save(
        stored, tmp_path / "in.onnx", save_as_external_data=True, location="in.bin",
        size_threshold=30, convert_attribute=True,
    )  # fmt: skip
    assert len(Model.load(tmp_path / "in.onnx").sites.external) > 2
    result = onnx_sipp.prune(tmp_path / "in.onnx", X, sparsity=0.5)
    result.save(tmp_path / "out.onnx")
    expected = onnx_sipp.prune(make(), X, sparsity=0.5)
    assert result.report.zeros == expected.report.zeros
    found, wanted = onnx.load(tmp_path / "out.onnx"), expected.model
    for mine, theirs in zip(all_sites(found), all_sites(wanted), strict=True):
        assert (to_array(mine) == to_array(theirs)).all()


def test_what_comes_first_is_refitted_first():
    """The layers inside a Loop, however many nodes lead to them, before what follows the Loop."""
    lowered = lower(Model.load(loop_model()))
    place = Flow(lowered).place
    inside, after = find_layers(lowered).layers
    assert (inside.name, after.name) == ("loop > body > inside", "after")
    (node,) = (i for i, n in enumerate(lowered.proto.graph.node) if list(n.output) == ["e"])
    assert place[inside.index] < place[node] < place[after.index]


def test_what_reads_a_weight_in_a_branch_never_taken_counts():
    other = body([("Gather", "w1 zero", "z")], ["z"])
    then = body([("MatMul", "x w1", "z", {"name": "m"})], ["z"])
    node = helper.make_node("If", ["yes"], ["y"], then_branch=then, else_branch=other)
    model = make_model([node], {"yes": np.array(True), "zero": np.array([0]), "w1": W1})
    (skip,) = onnx_sipp.inspect(model).skipped
    assert "is also read by Identity '' via Gather" in skip.reason


def test_loops_in_branches_in_loops():
    """A Loop that runs in an If that runs in a Loop."""
    inner = loop_model(trips=2).graph.node[0]
    inner.output[0] = "e"
    inner.input[2] = "s0"
    for attribute in inner.attribute:
        del attribute.g.initializer[:]
    then = body([inner], ["e"])
    other = body([("Identity", "s0", "e2")], ["e2"])
    choice = helper.make_node("If", ["odd"], ["s1"], then_branch=then, else_branch=other)
    outer = body(
        [("Mod", "i two", "bit"), ("Cast", "bit", "odd", {"to": TensorProto.BOOL}), choice,
         ("Identity", "go0", "on0")],
        [onnx.ValueInfoProto(name="on0"), onnx.ValueInfoProto(name="s1")],
        inputs=[helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("go0", TensorProto.BOOL, []),
                helper.make_tensor_value_info("s0", TensorProto.FLOAT, [None, 4])],
    )  # fmt: skip
    node = helper.make_node("Loop", ["outer", "", "x"], ["y"], name="outer", body=outer)
    model = make_model(
        [node],
        {"outer": np.array(4), "two": np.array(2), "trips": np.array(2), "c": weights(4, seed=6),
         "w": 0.5 * weights(4, 4, seed=5)},
        outputs={"y": ["n", 4]},
    )  # fmt: skip
    weight = 0.5 * weights(4, 4, seed=5)
    seen = Seen(model, X[:7])
    before, _ = loop_states(X[:7], weight, trips=4)  # iterations 1 and 3, two steps each
    rows = np.stack(before, axis=1).reshape(-1, 4)
    (name,) = seen.statistics
    assert name == "outer > body > If#2 > then_branch > loop > body > inside"
    assert_same(seen, name, rows, weight)
    assert onnx_sipp.prune(model, X, sparsity=0.5).report.zeros == 8
