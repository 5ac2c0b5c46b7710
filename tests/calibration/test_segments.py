"""A model run stage by stage gives what it gives as a whole."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_models import constant, make_model, mlp, save_external, tensor, weights

from onnx_sipp.calibration import segments
from onnx_sipp.calibration.products import WideProduct
from onnx_sipp.calibration.runner import Runner
from onnx_sipp.calibration.segments import SegmentedRun
from onnx_sipp.errors import SippError
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.store import TensorStore

ROWS = [{"x": weights(3, 4, seed=seed)} for seed in range(3)]
EXAMPLES = ("lenet300", "lenet5", "resnet_bn", "transformer")


def open_run(model, wanted, feeds, limit=1 << 20, folder=None):
    store = TensorStore(limit, folder)
    held = [(feed, store) for feed in feeds]
    return SegmentedRun(model, Flow(model), wanted, held, store, threads=1, providers=None)


def check(proto, wanted, feeds, limit=1 << 20):
    """Every stage's tensors are those of a run of the whole model."""
    model = Model.load(proto)
    names = sorted(set().union(*wanted))
    expected = [Runner(model, names, threads=1).run(feed) for feed in feeds]
    run = open_run(model, wanted, feeds, limit)
    for names in wanted:
        for live, whole in zip(run.advance(), expected, strict=True):
            for name in names:
                np.testing.assert_allclose(live[name], whole[name], rtol=1e-4, atol=1e-5)
    run.close()


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_stages_of_a_small_model(limit):
    check(mlp(), [{"x"}, {"h", "r"}, {"r", "y"}], ROWS, limit)


@pytest.mark.parametrize("name", EXAMPLES)
def test_stages_of_the_examples(models, name):
    model = Model.load(models / f"{name}.onnx")
    layers = find_layers(lower(model)).layers
    wanted = list({layer.activation: {layer.activation} for layer in layers}.values())
    wanted.append({"logits"})
    images = np.load(models / "digits-calib.npz")["input"]
    check(models / f"{name}.onnx", wanted, [{"input": images[:3]}, {"input": images[3:5]}])


def test_tensors_die_when_nothing_reads_them():
    run = open_run(Model.load(mlp()), [{"x"}, {"r"}, {"y"}], ROWS[:1])
    assert set(run.advance()[0]) == {"x"}
    assert set(run.advance()[0]) == {"x", "r"}
    assert set(run.advance()[0]) == {"r", "y"}
    run.close()


def test_close_forgets_everything(tmp_path):
    run = open_run(Model.load(mlp()), [{"r"}], ROWS, 0, tmp_path)
    lives = run.advance()
    run.close()
    assert [len(live) for live in lives] == [0, 0, 0]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_replaced_weights_act_in_later_stages():
    model = Model.load(mlp()).copy()
    run = open_run(model, [{"r"}, {"y"}], ROWS[:1])
    before = run.advance()[0]["r"]
    model.replace("w1", np.zeros((4, 8), np.float32))  # too late for this one
    model.replace("w2", np.ones((8, 3), np.float32))
    y = run.advance()[0]["y"]
    np.testing.assert_allclose(y, before.sum(1, keepdims=True) + model.read("b2"), rtol=1e-4)


def test_external_weights(tmp_path):
    check(save_external(mlp(), tmp_path / "m.onnx"), [{"r"}, {"y"}], ROWS)


def test_unsorted_constants_and_functions():
    double = helper.make_function(
        "own", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    proto = make_model(
        [
            constant("c", weights(4)),
            ("Neg", "c", "d"),
            ("Add", "x d", "a"),
            helper.make_node("Double", ["a"], ["b"], domain="own"),
            ("Add", "b d", "y"),
        ],
        {},
        functions=[double],
        domains=["own"],
    )
    check(proto, [{"a"}, {"b"}, {"y"}], ROWS)


def test_conditions():
    """The bodies of an If read a layer's output, an initializer and a graph input."""
    graphs = {}
    for name, nodes in {
        "then_branch": [helper.make_node("Add", ["a", "k"], ["then_branch_y"])],
        "else_branch": [helper.make_node("Sub", ["x", "a"], ["else_branch_y"])],
    }.items():
        outputs = [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)]
        graphs[name] = helper.make_graph(nodes, name, [], outputs)
    proto = make_model(
        [
            ("MatMul", "x w", "a"),
            ("ReduceSum", "a", "s", {"keepdims": 0}),
            ("Greater", "s zero", "positive"),
            helper.make_node("If", ["positive"], ["y"], **graphs),
        ],
        {"w": weights(4, 4), "k": weights(4), "zero": np.float32(0)},
    )
    check(proto, [{"a"}, {"positive"}, {"y"}], [*ROWS, {"x": -ROWS[0]["x"]}])


def test_loops():
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["still"]),
            helper.make_node("MatMul", ["state", "w"], ["product"]),
            helper.make_node("Add", ["product", "a"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    proto = make_model(
        [
            ("Relu", "x", "a"),
            ("Neg", "a", "b"),
            helper.make_node("Loop", ["three", "", "b"], ["c"], body=body),
            ("Add", "c a", "y"),
        ],
        {"w": weights(4, 4), "three": np.int64(3)},
    )
    check(proto, [{"a"}, {"b"}, {"c"}, {"y"}], ROWS)


def test_sparse_constants():
    proto = make_model(
        [("Relu", "x", "a"), ("Add", "a s", "b"), ("Add", "b s", "y")], {}, outputs={"y": ["n", 4]}
    )
    values = tensor("s", weights(2))
    indices = tensor("s_indices", np.array([1, 3]))
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    check(proto, [{"a"}, {"b"}, {"y"}], ROWS)


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_sequences_between_stages(limit):
    proto = make_model(
        [
            ("SplitToSequence", "x", "parts", {"axis": 1}),
            ("SequenceAt", "parts zero", "a"),
            ("Relu", "a", "b"),
            ("SequenceAt", "parts one", "c"),
            ("Add", "b c", "y"),
        ],
        {"zero": np.int64(0), "one": np.int64(1)},
    )
    check(proto, [{"a"}, {"b"}, {"y"}], ROWS, limit)


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_strings_between_stages(limit):
    proto = make_model(
        [("Relu", "x", "a"), ("Identity", "words", "w"), ("Identity", "w", "v")],
        {},
        outputs=(),
    )
    for value, name in ((proto.graph.input, "words"), (proto.graph.output, "v")):
        value.append(helper.make_tensor_value_info(name, TensorProto.STRING, [None]))
    feed = {**ROWS[0], "words": np.array(["one", "two"], object)}
    run = open_run(Model.load(proto), [{"a", "w"}, {"v"}], [feed], limit)
    run.advance()
    assert run.advance()[0]["v"].tolist() == ["one", "two"]


def test_the_model_itself_does_not_change():
    proto = mlp()
    before = onnx.ModelProto()
    before.CopyFrom(proto)
    check(proto, [{"r"}, {"y"}], ROWS)
    assert proto == before


# --- large constants ---------------------------------------------------------------------------


@pytest.fixture
def pieces(monkeypatch):
    """Constants of a few bytes are large."""
    monkeypatch.setattr("onnx_sipp.calibration.segments.SEGMENT_BYTES", 40)
    monkeypatch.setattr("onnx_sipp.graph.handing_over.MAPPED_BYTES", 20)


@pytest.mark.parametrize("external", [True, False])
def test_in_several_segments(pieces, tmp_path, external):
    proto = save_external(mlp(), tmp_path / "m.onnx") if external else mlp()
    check(proto, [{"x"}, {"y"}], ROWS)
    check(proto, [{"r"}, {"r", "y"}], ROWS, limit=0)


@pytest.mark.parametrize("name", ["lenet5", "transformer"])
def test_the_examples_in_several_segments(models, monkeypatch, tmp_path, name):
    monkeypatch.setattr("onnx_sipp.calibration.segments.SEGMENT_BYTES", 2000)
    monkeypatch.setattr("onnx_sipp.graph.handing_over.MAPPED_BYTES", 500)
    path, proto = tmp_path / "m.onnx", onnx.load(models / f"{name}.onnx")
    onnx.save(proto, path, save_as_external_data=True, size_threshold=500)
    images = np.load(models / "digits-calib.npz")["input"]
    check(path, [{"logits"}], [{"input": images[:3]}, {"input": images[3:5]}])


PRODUCTS = {
    "MatMul": ("MatMul", "x w", (4, 6), {}),
    "Gemm": ("Gemm", "x w", (4, 6), {}),
    "transB": ("Gemm", "x w", (6, 4), {"transB": 1, "alpha": 2.0}),
    "bias": ("Gemm", "x w c", (4, 6), {"beta": 0.5}),
    "one bias for all": ("Gemm", "x w s", (4, 6), {}),
    "bias per row": ("Gemm", "x w r", (4, 6), {}),
    "transA": ("Gemm", "t w", (3, 6), {"transA": 1}),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_columns_of_a_product_one_after_the_other(pieces, tmp_path, name):
    op, inputs, shape, attributes = PRODUCTS[name]
    rows = 4 if name == "transA" else 3
    constants = {
        "w": weights(*shape),
        "c": weights(6),
        "s": np.float32(2).reshape(()),
        "r": weights(rows, 1),
    }
    nodes = [("Identity", "x", "t"), (op, inputs, "p", attributes), ("Relu", "p", "y")]
    used = {key: value for key, value in constants.items() if key in inputs.split()}
    path = save_external(make_model(nodes, used), tmp_path / "m.onnx")
    model = Model.load(path)
    product = WideProduct.of(model, model.proto.graph.node[1])
    assert product is not None
    check(path, [{"y"}], ROWS)
    check(path, [{"p"}], ROWS, limit=0)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([("MatMul", "w x", "y")], {"w": weights(6, 3)}),  # the constant is on the left
        ([("MatMul", "x w", "y")], {"w": weights(2, 4, 6)}),  # batched
        ([("Abs", "x", "c"), ("Gemm", "x w c", "y")], {"w": weights(4, 4)}),  # a bias that varies
        ([("MatMul", "x w", "y")], {"w": weights(4, 1)}),  # small
        ([("Add", "x w", "y")], {"w": weights(3, 4)}),
    ],
)
def test_other_nodes_are_run_whole(pieces, tmp_path, nodes, constants):
    path = save_external(make_model(nodes, constants), tmp_path / "m.onnx")
    model = Model.load(path)
    assert all(WideProduct.of(model, node) is None for node in model.proto.graph.node)
    check(path, [{"y"}], ROWS)


def test_a_failure_of_the_runtime_is_told(pieces, tmp_path):
    path = save_external(mlp(), tmp_path / "m.onnx")
    run = open_run(Model.load(path), [{"y"}], [{"x": weights(3, 5)}])
    with pytest.raises(SippError, match="onnxruntime fails on the input"):
        run.advance()


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_batches_may_run_at_the_same_time(monkeypatch, count):
    feeds = [{"x": weights(3, 4, seed=seed)} for seed in range(count)]
    model, store, at_once = Model.load(mlp()), TensorStore(100), []
    hands = segments.hands
    monkeypatch.setattr(segments, "hands", lambda *given: at_once.append(given) or hands(*given))
    held = [(feed, store) for feed in feeds]
    run = SegmentedRun(model, Flow(model), [{"h"}, {"y"}], held, store, threads=2, providers=None)
    whole = Runner(model, ["h", "y"], threads=1)
    for name in ("h", "y"):
        for live, feed in zip(run.advance(), feeds, strict=True):
            np.testing.assert_array_equal(live[name], whole.run(feed)[name])
    run.close()
    assert at_once == ([(4, 2)] * 2 if count >= 4 else [])
