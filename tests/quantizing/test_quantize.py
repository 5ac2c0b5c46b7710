"""Quantising: zeros stay zeros, names stay, and the result runs."""

import logging

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from small_models import make_model, save_external, weights

import onnx_sipp.quantizing.quantize as module
from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.graph.model import Model
from onnx_sipp.quantizing import saturation
from onnx_sipp.quantizing.quantize import quantize
from onnx_sipp.quantizing.saturation import CUTS_OFF, cuts_off_sums

RNG = np.random.default_rng(5)
# What these models lose to integers; much more where the processor cuts off sums.
LOST = 0.2 if cuts_off_sums() else 0.03
FEEDS = [{"x": RNG.standard_normal((1, 3, 8, 8), np.float32)} for _ in range(20)]
FLAT = [{"x": RNG.standard_normal((1, 24), np.float32)} for _ in range(20)]


def sparse(*shape, share=0.7, seed=0):
    values = weights(*shape, seed=seed)
    values[np.random.default_rng(seed).random(shape) < share] = 0
    return values


def convolutions(opset=17, **extra):
    """A Conv with a batch normalisation, one without, and a shape that can be folded."""
    ones = np.ones(8, np.float32)
    return make_model(
        [
            ("Conv", "x c1 b1", "h1", {"strides": [1, 1], "group": 1}),
            ("BatchNormalization", "h1 scale shift mean var", "n1"),
            ("Relu", "n1", "r1"),
            ("Conv", "r1 c2 b2", "h2", {"strides": [2, 2]}),
            ("Flatten", "h2", "f"),
            ("Gemm", "f g gb", "y", {"transB": 1}),
        ],
        {
            "c1": sparse(8, 3, 3, 3), "b1": weights(8), "scale": ones * 2, "shift": weights(8),
            "mean": weights(8, seed=2), "var": ones, "c2": sparse(4, 8, 2, 2, seed=3),
            "b2": weights(4), "g": sparse(5, 36, seed=4), "gb": weights(5),
        },
        {"x": ["n", 3, 8, 8]},
        {"y": ["n", 5]},
        opset=opset,
        **extra,
    )  # fmt: skip


def dense_layers():
    return make_model(
        [
            ("Gemm", "x w1 b1", "h", {"transB": 1}),
            ("Relu", "h", "r"),
            ("MatMul", "r w2", "y"),
        ],
        {"w1": sparse(40, 24), "b1": weights(40), "w2": sparse(40, 6, seed=1)},
        {"x": ["n", 24]},
        {"y": ["n", 6]},
    )


def outputs(model, feeds):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, feed)[0] for feed in feeds])


def error(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


@pytest.mark.parametrize(
    ("model", "kind", "feeds", "shapes"),
    [
        (convolutions(), "int8", FEEDS, [[8, 3, 3, 3], [4, 8, 2, 2], [5, 36]]),
        (dense_layers(), "int8", FLAT, [[40, 24], [40, 6]]),
        (dense_layers(), "int8-dynamic", FLAT, [[40, 24], [40, 6]]),
    ],
)
def test_zeros_become_zero_points(model, kind, feeds, shapes):
    before = model.SerializeToString()
    done = quantize(Model.load(model), kind, feeds, 1)
    assert model.SerializeToString() == before
    proto = done.model.proto
    onnx.checker.check_model(proto, full_check=True)
    assert sorted(weight.shape for weight in done.weights) == sorted(shapes)
    assert done.left == []
    own = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for weight in done.weights:
        levels = own[weight.name]
        assert levels.dtype == np.int8
        assert np.count_nonzero(levels == 0) == weight.zeros >= weight.zeros_before
        assert weight.zeros_before > 0.6 * weight.elements
        assert weight.scales > 1
    assert 0 < error(outputs(proto, feeds), outputs(model, feeds)) < LOST


def test_zeros_are_where_they_were():
    model = dense_layers()
    done = quantize(Model.load(model), "int8", FLAT, 1)
    own = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in done.model.proto.graph.initializer
    }
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2:
            zeros = numpy_helper.to_array(tensor) == 0
            assert (own[tensor.name][zeros] == 0).all()
            assert (own[tensor.name][~zeros] != 0).mean() > 0.95


def test_batch_normalisation_is_folded_and_integers_are_used(tmp_path):
    done = quantize(Model.load(convolutions()), "int8", FEEDS, 1)
    assert "BatchNormalization" not in {node.op_type for node in done.model.proto.graph.node}
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(done.model.proto.SerializeToString(), options, ["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 2
    assert "Conv" not in kinds


def test_what_people_wrote_stays():
    model = convolutions()
    model.producer_name, model.doc_string, model.graph.name = "me", "words", "net"
    helper.set_model_props(model, {"classes": "a,b"})
    for number, node in enumerate(model.graph.node):
        node.name = f"layer{number}"
    proto = quantize(Model.load(model), "int8", FEEDS, 1).model.proto
    assert (proto.producer_name, proto.doc_string, proto.graph.name) == ("me", "words", "net")
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"classes": "a,b"}
    assert {entry.domain for entry in proto.opset_import} == {""}
    assert {"layer0", "layer3", "layer5"} <= {node.name for node in proto.graph.node}
    assert [value.name for value in proto.graph.input] == ["x"]
    assert [value.name for value in proto.graph.output] == ["y"]
    assert {"c2", "g"} <= {tensor.name for tensor in proto.graph.initializer}


def test_dynamic_keeps_the_names_of_layers():
    model = dense_layers()
    for number, node in enumerate(model.graph.node):
        node.name = f"layer{number}"
    proto = quantize(Model.load(model), "int8-dynamic", [], 1).model.proto
    names = {node.name: node.op_type for node in proto.graph.node if node.name}
    assert names == {"layer0": "MatMulInteger", "layer1": "Relu", "layer2": "MatMulInteger"}


def test_one_scale_where_the_operators_have_no_axis():
    done = quantize(Model.load(convolutions(opset=11)), "int8", FEEDS, 1)
    assert {weight.scales for weight in done.weights} == {1}
    onnx.checker.check_model(done.model.proto)


def test_external_data(tmp_path):
    save_external(dense_layers(), tmp_path / "in.onnx")
    model = Model.load(tmp_path / "in.onnx")
    assert model.sites.external
    done = quantize(model, "int8", FLAT, 1)
    assert error(outputs(done.model.proto, FLAT), outputs(dense_layers(), FLAT)) < LOST


@pytest.mark.parametrize("cuts_off", [False, True])
def test_processors_that_cut_off_sums_are_told_of(monkeypatch, cuts_off):
    monkeypatch.setattr(module, "cuts_off_sums", lambda: cuts_off)
    assert quantize(Model.load(dense_layers()), "int8", FLAT, 1).notes == (CUTS_OFF,) * cuts_off


@pytest.mark.parametrize("cuts_off", [False, True])
def test_whether_sums_are_cut_off_is_tried(monkeypatch, cuts_off):
    """As onnxruntime has it: two products of 255 and 127 do not fit into 16 bits."""
    right = 64 * 255 * 127
    found = np.full((1, 16), 32 * 32767 if cuts_off else right, np.int32)
    monkeypatch.setattr(saturation, "run_session", lambda *_: [found])
    assert cuts_off_sums.__wrapped__() == cuts_off


def test_lstm():
    model = make_model(
        [("LSTM", "x w r", "y", {"hidden_size": 8})],
        {"w": sparse(1, 32, 6), "r": sparse(1, 32, 8, seed=1)},
        {"x": [5, 1, 6]},
        {"y": [5, 1, 1, 8]},
    )
    feeds = [{"x": RNG.standard_normal((5, 1, 6), np.float32)} for _ in range(4)]
    done = quantize(Model.load(model), "int8-dynamic", feeds, 1)
    assert [weight.name for weight in done.weights] == ["w", "r"]
    assert all(weight.zeros >= weight.zeros_before > 0 for weight in done.weights)
    assert error(outputs(done.model.proto, feeds), outputs(model, feeds)) < 0.05


def test_branches_mean_the_tensors_that_they_name():
    """What a subgraph reads of the outer graph keeps its name."""
    then = helper.make_graph(
        [helper.make_node("Relu", ["h"], ["t"])], "then", [],
        [helper.make_tensor_value_info("t", onnx.TensorProto.FLOAT, None)],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Neg", ["h"], ["e"])], "else", [],
        [helper.make_tensor_value_info("e", onnx.TensorProto.FLOAT, None)],
    )  # fmt: skip
    model = make_model(
        [
            ("MatMul", "x w", "h"),
            ("ReduceSum", "h", "s", {"keepdims": 0}),
            ("Greater", "s zero", "c"),
            ("If", "c", "y", {"then_branch": then, "else_branch": other}),
        ],
        {"w": sparse(24, 6), "zero": np.float32(0)},
        {"x": [1, 24]},
        {"y": [1, 6]},
    )
    done = quantize(Model.load(model), "int8", FLAT, 1)
    assert error(outputs(done.model.proto, FLAT), outputs(model, FLAT)) < 0.05


def test_folding_is_left_out_where_the_quantiser_fails_after_it():
    """Initializers that are inputs too are not, once something is folded into them."""
    model = make_model(
        [("Conv", "x c", "h"), ("Add", "h a", "y")],
        {"c": sparse(8, 3, 3, 3), "a": weights(8, 1, 1)},
        {"x": ["n", 3, 8, 8]},
        {"y": ["n", 8, 6, 6]},
        opset=8,
    )
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    done = quantize(Model.load(model), "int8", FEEDS, 1)
    assert done.notes[0].startswith("quantised without folding constants first")
    assert [weight.name for weight in done.weights] == ["c", "a"]
    assert [value.name for value in done.model.proto.graph.input] == ["x"]
    assert done.model.proto.ir_version >= 6  # that of opset 11, which the quantiser needs
    assert error(outputs(done.model.proto, FEEDS), outputs(model, FEEDS)) < 0.03


@pytest.mark.parametrize(("kind", "feeds"), [("int8", FLAT), ("int8-dynamic", [])])
def test_logging_is_as_it_was(monkeypatch, kind, feeds):
    monkeypatch.setattr(logging.root, "handlers", [])  # as without a test runner
    before = logging.root.manager.disable
    quantize(Model.load(dense_layers()), kind, feeds, 1)
    assert logging.root.manager.disable == before
    assert logging.root.handlers == []


def test_nothing_to_do():
    conv = make_model(
        [("Conv", "x c", "y")],
        {"c": sparse(8, 3, 3, 3)}, {"x": ["n", 3, 8, 8]}, {"y": ["n", 8, 6, 6]},
    )  # fmt: skip
    with pytest.raises(SippError, match=r"found no weight .*Conv.*--quantize int8 does more"):
        quantize(Model.load(conv), "int8-dynamic", FEEDS, 1)


def test_refused():
    once = quantize(Model.load(dense_layers()), "int8", FLAT, 1).model
    with pytest.raises(UsageError, match="quantised already"):
        quantize(once, "int8", FLAT, 1)
    with pytest.raises(UsageError, match="one of int8, int8-dynamic"):
        quantize(Model.load(dense_layers()), "int4", FLAT, 1)
    with pytest.raises(UsageError, match="custom-ops"):
        quantize(Model(dense_layers(), libraries=["ops.so"]), "int8", FLAT, 1)
    with pytest.raises(SippError, match="quantiser fails"):
        quantize(Model.load(dense_layers()), "int8", [], 1)
