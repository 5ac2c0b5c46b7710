"""Whole runs with a pattern: every mask obeys it, in every kind of layer and by every method."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from polygraphy.tools.sparse import SparsityPruner
from small_models import make_model, weights

from onnx_sipp import prune
from onnx_sipp.budgeting.chooser import Chooser
from onnx_sipp.memory import Plan
from onnx_sipp.pruning import candidates
from onnx_sipp.pruning.effort import LEAST
from onnx_sipp.pruning.evidence import Evidence

# Of each stored weight, the axes of output and input channels, once its groups are parted.
KINDS = {
    "conv": (0, 1),
    "grouped": (0, 1),
    "upwards": (1, 0),
    "gemm": (0, 1),
    "plain": (1, 0),
    "matmul": (1, 0),
    "left": (0, 1),
}
GROUPS = {"grouped": 2}
METHODS = ["mixed", "magnitude", "wanda", "sipp-det", "random"]
PATTERNS = ["2:4", "1:4", "4:8", "4x1", "1x4", "2x2"]
DATA = np.random.default_rng(0).standard_normal((24, 8, 4, 4), np.float32)


def every_kind():
    nodes = [
        ("Conv", "x conv", "a", {"name": "conv", "pads": [1, 1, 1, 1]}),
        ("Relu", "a", "b"),
        ("Conv", "b grouped", "c", {"name": "grouped", "group": 2}),
        ("ConvTranspose", "c upwards", "d", {"name": "upwards", "strides": [2, 2]}),
        ("GlobalAveragePool", "d", "e"),
        ("Flatten", "e", "f"),
        ("Gemm", "f gemm bias", "g", {"name": "gemm", "transB": 1}),
        ("Relu", "g", "h"),
        ("Gemm", "h plain", "i", {"name": "plain"}),
        ("MatMul", "i matmul", "j", {"name": "matmul"}),
        ("Transpose", "j", "k", {"perm": [1, 0]}),
        ("MatMul", "left k", "y", {"name": "left"}),
    ]
    shapes = {
        "conv": (16, 8, 3, 3),
        "grouped": (16, 8, 1, 1),
        "upwards": (16, 8, 2, 2),
        "gemm": (16, 8),
        "plain": (16, 16),
        "matmul": (16, 8),
        "left": (4, 8),
    }
    values = {name: weights(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    return make_model(nodes, values | {"bias": weights(16)}, {"x": ["n", 8, 4, 4]})


def in_channels(name, value):
    """The stored weight as ``[group, out, channel, position]``."""
    out, channel = KINDS[name]
    groups = GROUPS.get(name, 1)
    moved = np.moveaxis(value, (out, channel), (0, 1))
    return moved.reshape(groups, moved.shape[0] // groups, moved.shape[1], -1)


def stored(model):
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def check(name, value, pattern):
    """Assert that the zeros of a stored weight follow a pattern."""
    nonzero = in_channels(name, value) != 0
    groups, outs, channels, places = nonzero.shape
    if ":" in pattern:
        n, m = map(int, pattern.split(":"))
        counts = nonzero.reshape(groups, outs, channels // m, m, places).sum(axis=3)
        assert np.all(counts == n), name
        return
    r, c = map(int, pattern.split("x"))
    blocks = nonzero.reshape(groups, outs // r, r, channels // c, c, places).sum(axis=(2, 4))
    assert set(np.unique(blocks)) <= {0, r * c}, name


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("compensate", ["sequential", "none"])
def test_every_mask_obeys_the_pattern(method, pattern, compensate):
    result = prune(every_kind(), DATA, method=method, pattern=pattern, compensate=compensate)
    values = stored(result.model)
    for name in KINDS:
        check(name, values[name], pattern)
        assert np.array_equal(result.masks[name], values[name] != 0)
    report = result.report
    wanted = {"1:4": 0.75}.get(pattern, 0.5)
    assert report.zeros == round(wanted * report.prunable)
    assert not any("asked for" in warning for warning in report.warnings)
    assert np.isfinite(report.outputs[0].relative_error)


@pytest.mark.parametrize("allocation", ["global", "layer", "neuron", "lamp", "error", "impact"])
def test_blocks_are_met_exactly_by_every_budget(allocation):
    result = prune(every_kind(), DATA, pattern="4x1", sparsity=0.7, allocation=allocation)
    report = result.report
    assert abs(report.zeros - 0.7 * report.prunable) <= 2
    for name, value in stored(result.model).items():
        if name in KINDS:
            check(name, value, "4x1")


@pytest.mark.parametrize(
    ("pattern", "allocation"), [("2:4", ""), ("4x1", ""), ("4x1", "neuron"), ("4x1", "lamp")]
)
def test_weights_in_blocks_of_neurons_follow_the_pattern(monkeypatch, pattern, allocation):
    nodes = [
        ("Gemm", "x gemm", "h", {"name": "gemm", "transB": 1}),
        ("Relu", "h", "r"),
        ("MatMul", "r matmul", "y", {"name": "matmul"}),
    ]
    values = {"gemm": weights(304, 16), "matmul": weights(304, 400, seed=1)}
    model = make_model(nodes, values, {"x": ["n", 16]})
    monkeypatch.setattr(Plan, "within", classmethod(lambda cls, *_: cls(1 << 12, 1)))
    monkeypatch.setattr(candidates, "GREEDY_LIMIT", 0)
    monkeypatch.setattr(Evidence, "effort", LEAST)
    opened = []
    monkeypatch.setattr(
        Chooser, "open", lambda self, *a, old=Chooser.open: opened.append(a[0]) or old(self, *a)
    )
    data = np.random.default_rng(0).standard_normal((64, 16), np.float32)
    for method in ("mixed", "wanda"):
        result = prune(model, data, pattern=pattern, method=method, allocation=allocation)
        for name, value in stored(result.model).items():
            if name in KINDS:
                check(name, value, pattern)
        assert result.report.zeros == result.report.prunable // 2
    assert opened


@pytest.mark.parametrize("pattern", ["2:4", "2x2"])
def test_rounds_end_in_the_pattern(pattern):
    result = prune(every_kind(), DATA, pattern=pattern, rounds=3)
    for name, value in stored(result.model).items():
        if name in KINDS:
            check(name, value, pattern)
    assert result.report.zeros == result.report.prunable // 2


@pytest.mark.parametrize("pattern", ["2:4", "4x1"])
def test_dead_paths_do_not_break_a_pattern(pattern):
    model = every_kind()
    for value in model.graph.initializer:
        if value.name == "matmul":  # 6 of its 16 inputs are read by nothing
            array = onnx.numpy_helper.to_array(value).copy()
            array[:6] = 0
            value.CopyFrom(onnx.numpy_helper.from_array(array, "matmul"))
    result = prune(model, DATA, pattern=pattern)
    for name, value in stored(result.model).items():
        if name in KINDS and name != "matmul":
            nonzero = in_channels(name, value) != 0
            if pattern == "2:4":
                groups, outs, channels, places = nonzero.shape
                cells = nonzero.reshape(groups, outs, channels // 4, 4, places)
                assert cells.sum(axis=3).max() <= 2
            else:
                check(name, value, pattern)
    assert result.report.zeros >= result.report.prunable // 2


def test_the_matrices_of_an_lstm_have_the_pattern_each():
    hidden, features = 8, 4
    values = {
        "W": weights(1, 4 * hidden, features),
        "R": weights(1, 4 * hidden, hidden, seed=1) / 4,
    }
    node = ("LSTM", "x W R", "y", {"name": "lstm", "hidden_size": hidden})
    model = make_model([node], values, {"x": [5, "n", features]})
    data = np.random.default_rng(0).standard_normal((20, 5, 1, features), np.float32)
    result = prune(model, [{"x": one} for one in data], pattern="2:4")
    for name, value in stored(result.model).items():
        assert np.all((value != 0).reshape(-1, 4).sum(axis=1) == 2), name
    assert all("runs as a whole" in row.no_sparse_cores for row in result.report.layers)


def test_quantised_weights_have_their_zero_point_in_the_pattern():
    kernel = np.random.default_rng(0).integers(0, 256, (8, 4, 3, 3), np.uint8)
    kernel[kernel == 100] = 101
    nodes = [
        ("DequantizeLinear", "q scale point", "w"),
        ("Conv", "x w", "y", {"name": "conv"}),
    ]
    values = {"q": kernel, "scale": np.float32(0.01), "point": np.uint8(100)}
    model = make_model(nodes, values, {"x": ["n", 4, 4, 4]})
    result = prune(model, DATA[:, :4], pattern="2:4")
    value = stored(result.model)["q"]
    assert np.all((value != 100).sum(axis=1) == 2)
    assert result.report.layers[0].no_sparse_cores == ""


@pytest.mark.parametrize("pattern", ["2:4", "4x1"])
def test_layers_too_large_for_the_greedy_order_follow_the_pattern(monkeypatch, pattern):
    monkeypatch.setattr(candidates, "GREEDY_LIMIT", 0)
    result = prune(every_kind(), DATA, pattern=pattern)
    for name, value in stored(result.model).items():
        if name in KINDS:
            check(name, value, pattern)
    assert result.report.zeros == result.report.prunable // 2


def test_the_refit_helps():
    errors = [
        prune(every_kind(), DATA, pattern="2:4", method=method).report.outputs[0].relative_error
        for method in ("mixed", "magnitude")
    ]
    assert errors[0] < errors[1] / 2


@pytest.mark.parametrize("pattern", ["2:4", "1:4"])
def test_results_pass_the_check_of_polygraphy(models, pattern):
    result = prune(
        models / "resnet_bn.onnx", models / "digits-calib.npz", pattern=pattern, num_samples=64
    )
    able = {row.weight for row in result.report.layers if row.no_sparse_cores == ""}
    checker = SparsityPruner(result.model)
    checker.check()
    assert able
    assert checker.sparse_tensors == able
    session = ort.InferenceSession(result.model.SerializeToString())
    assert session.run(None, {"input": np.load(models / "digits-test.npz")["input"][:3]})
