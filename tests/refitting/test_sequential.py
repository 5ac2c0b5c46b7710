"""Refitting layer after layer, end to end with the default method."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from small_models import make_model, mlp, tensor, weights, without_new_biases

from onnx_sipp import prune
from onnx_sipp.calibration.samples import open_samples
from onnx_sipp.graph.model import Model

RNG = np.random.default_rng(0)
# Inputs that say much about each other, so that refitting has something to gain.
DATA = (RNG.standard_normal((80, 3)) @ RNG.standard_normal((3, 4))).astype(np.float32) + weights(
    80, 4, seed=3
) * np.float32(0.2)
IMAGES = weights(40, 4, 6, 6, seed=4)
IMAGES[:, 1] += IMAGES[:, 0]
IMAGE = {"x": ["n", 4, 6, 6]}
EXAMPLES = ("lenet300", "lenet5", "resnet_bn", "transformer")
# One budget and one candidate: nothing is left to compare, so these tests are fast.
FAST = {"allocation": "neuron", "candidates": ("activation",), "threads": 1}


def run(proto, x, name="x"):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: x})[0]


def constants(proto):
    return {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}


def squared_error(before, after):
    return float(np.sum((after - before) ** 2) / np.sum(before**2))


def kept_weights(result):
    return sum(int(mask.sum()) for mask in result.masks.values())


# --- least squares -----------------------------------------------------------------------------


@pytest.mark.parametrize("biased", [True, False])
def test_one_layer_is_the_direct_least_squares(biased):
    bias = {"c": weights(3)} if biased else {}
    old = weights(4, 3)
    proto = make_model([("Gemm", "x w c" if biased else "x w", "y")], {"w": old, **bias})
    result = prune(proto, DATA, sparsity=0.5)
    (row,) = result.report.layers
    assert row.damping > 0
    samples = open_samples(
        Model.load(proto), DATA, num_samples=None, seed=0, input_shapes={}, providers=None
    )
    a = np.concatenate([feed["x"] for feed in samples.calibration]).astype(np.float64)
    mean = a.mean(0) if biased else np.zeros(4)
    gram = (a - mean).T @ (a - mean) / len(a)
    shift = row.damping * np.trace(gram) / 4
    found = constants(result.model)
    (mask,) = result.masks.values()
    expected = np.zeros((4, 3))
    for neuron in range(3):
        kept = np.flatnonzero(mask[:, neuron])
        target = gram @ old[:, neuron] + shift * old[:, neuron]
        damped = gram[np.ix_(kept, kept)] + shift * np.eye(len(kept))
        expected[kept, neuron] = np.linalg.solve(damped, target[kept])
    np.testing.assert_allclose(found["w"], expected, rtol=1e-3, atol=1e-4)
    if biased:
        np.testing.assert_allclose(
            found["c"], bias["c"] + mean @ (old - expected), rtol=1e-3, atol=1e-4
        )
        assert row.bias == "c"


def test_a_tensor_of_rank_three_is_a_stack_of_rows():
    nodes = [("MatMul", "x w", "h"), ("Add", "h c", "r"), ("MatMul", "r u", "y")]
    values = {"w": weights(4, 6), "c": weights(6), "u": weights(6, 3, seed=2)}
    rows = make_model(nodes, values, {"x": [4, 4]})
    stack = make_model(nodes, values, {"x": [1, 4, 4]})
    flat, deep = (
        constants(prune(proto, {"x": data}, sparsity=0.5, batch_size=1, **FAST).model)
        for proto, data in (
            (rows, DATA.reshape(20, 4, 4)),
            (stack, DATA.reshape(20, 1, 4, 4)),
        )
    )
    for name, value in flat.items():
        np.testing.assert_allclose(deep[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["transA", "transB"])
def test_a_transposed_activation_is_a_stack_of_columns(side):
    weight = weights(4, 4)
    rows = [DATA[start : start + 4] for start in range(0, 80, 4)]
    if side == "transA":
        node, given = ("Gemm", "x w", "y", {"transA": 1}), [{"x": part.T.copy()} for part in rows]
    else:
        node, given = ("Gemm", "w x", "y", {"transB": 1}), [{"x": part} for part in rows]
    plain = make_model([("MatMul", "x w", "y")], {"w": weight}, {"x": [4, 4]})
    turned = make_model(
        [node], {"w": weight.T.copy() if side == "transB" else weight}, {"x": [4, 4]}
    )
    expected = constants(prune(plain, [{"x": part} for part in rows], **FAST).model)["w"]
    found = constants(prune(turned, given, **FAST).model)["w"]
    np.testing.assert_allclose(
        found.T if side == "transB" else found, expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_sequential_beats_layerwise_beats_none(models, name):
    path = models / f"{name}.onnx"
    images = np.load(models / "digits-test.npz")["input"][:100]
    before = run(onnx.load(path), images, "input")
    errors = {}
    for compensate in ("sequential", "layerwise", "none"):
        result = prune(
            path, models / "digits-calib.npz", sparsity=0.8, num_samples=80,
            compensate=compensate, **FAST,
        )  # fmt: skip
        errors[compensate] = squared_error(before, run(result.model, images, "input"))
    assert errors["sequential"] < errors["layerwise"] < errors["none"]


# --- what does not matter ----------------------------------------------------------------------


def pruned_digits(models, name="lenet5", **options):
    return prune(
        models / f"{name}.onnx", models / "digits-calib.npz",
        **{"sparsity": 0.7, "num_samples": 24, **FAST, **options},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["resnet_bn", "transformer"])
def test_same_bytes_twice(models, name):
    first, second = (
        pruned_digits(models, name, threads=2, num_samples=10).model.SerializeToString()
        for _ in range(2)
    )
    assert first == second


@pytest.fixture(scope="module")
def digits(models):
    """Two models pruned with a thread and a batch size that were chosen."""
    return {name: pruned_digits(models, name) for name in ("lenet5", "transformer")}


def masks_agree(first, second):
    same = sum(int((first.masks[name] == mask).sum()) for name, mask in second.masks.items())
    return same / sum(mask.size for mask in first.masks.values())


@pytest.mark.parametrize(
    "options", [{"threads": 2}, {"batch_size": 1}, {"batch_size": 7}, {"batch_size": 32}]
)
def test_threads_and_batches_change_nothing(models, digits, options):
    for name, first in digits.items():
        assert masks_agree(first, pruned_digits(models, name, **options)) >= 0.999


def test_memory_limit_changes_nothing(models, tmp_path):
    results = [
        pruned_digits(models, "resnet_bn", num_samples=10, memory_limit=limit, workdir=tmp_path)
        for limit in (0, 1 << 30)
    ]
    assert results[0].model.SerializeToString() == results[1].model.SerializeToString()
    assert list(tmp_path.iterdir()) == []


# --- graphs ------------------------------------------------------------------------------------


def check_exact(proto, data, sparsity=0.5, **options):
    """Prune, and look at counts and at what must not change."""
    result = prune(proto, data, sparsity=sparsity, **FAST, **options)
    report = result.report
    assert report.zeros == round(sparsity * report.prunable)
    plain = without_new_biases(result.model, report)
    before, after = constants(proto), constants(plain)
    touched = {row.weight for row in report.layers} | {row.bias for row in report.layers}
    for name, value in before.items():
        if name not in touched:
            np.testing.assert_array_equal(after[name], value)
    assert plain.graph.node == proto.graph.node
    assert sum(
        int(np.count_nonzero(after[name] == 0)) for name in {row.weight for row in report.layers}
    ) == (report.zeros)
    assert all(np.isfinite(value).all() for value in after.values())
    return result


@pytest.mark.parametrize("decades", [2, 4, 6])
def test_the_units_of_the_inputs_hardly_matter(decades):
    """The same function of inputs in other units, as of a table, loses about as much."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((16, 32)), rng.standard_normal((32, 8))
    nodes = [("MatMul", "x a", "h"), ("Relu", "h", "r"), ("MatMul", "r b", "y")]
    data = rng.standard_normal((300, 16))

    def pruned(units):
        told = {"a": (first / units[:, None]).astype(np.float32), "b": second.astype(np.float32)}
        proto = make_model(nodes, told, {"x": ["n", 16]}, {"y": ["n", 8]})
        return prune(proto, (data * units).astype(np.float32), sparsity=0.5).report

    plain, other = pruned(np.ones(16)), pruned(np.logspace(-decades, decades, 16))
    assert other.outputs[0].relative_error < 1.2 * plain.outputs[0].relative_error
    for before, after in zip(plain.layers, other.layers, strict=True):
        assert abs(before.zeros - after.zeros) < 0.15 * before.parameters


def test_a_weight_that_two_layers_share():
    proto = make_model(
        [
            ("Gemm", "x w b", "h"),
            ("Relu", "h", "r"),
            ("Gemm", "r w c", "y"),
        ],
        {"w": weights(4, 4), "b": weights(4), "c": weights(4, seed=1)},
    )
    result = check_exact(proto, DATA)
    first, second = result.masks.values()
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("shape", [(4, 4), (4, 6)])
def test_a_shared_weight_seen_in_two_ways_whatever_the_order(shape):
    """The stage of the layer that comes second in the graph is the first to run."""
    proto = make_model(
        [
            ("Gemm", "x v", "h"),
            ("Relu", "h", "r"),
            ("Gemm", "r w", "a", {"transB": 1}),
            ("Gemm", "x w", "b"),
            ("MatMul", "a u", "c"),
            ("Add", "b c", "y"),
        ],
        {
            "v": weights(4, shape[1]),
            "w": weights(*shape, seed=1),
            "u": weights(4, shape[1], seed=2),
        },
    )
    result = check_exact(proto, DATA)
    x = DATA[:20]
    assert squared_error(run(proto, x), run(result.model, x)) < 0.9


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("biased", [True, False])
def test_grouped_and_depthwise_convolutions(group, biased):
    proto = make_model(
        [
            ("Conv", "x w c" if biased else "x w", "h", {"group": group, "pads": [1, 1, 1, 1]}),
            ("Relu", "h", "r"),
            ("Conv", "r u", "y"),
        ],
        {
            "w": weights(8, 4 // group, 3, 3),
            "u": weights(3, 8, 1, 1, seed=1),
            **({"c": weights(8)} if biased else {}),
        },
        IMAGE,
    )
    result = check_exact(proto, IMAGES)
    plain = check_exact(proto, IMAGES, compensate="none")
    before = run(proto, IMAGES)
    errors = [squared_error(before, run(r.model, IMAGES)) for r in (result, plain)]
    assert errors[0] < errors[1]


def test_batch_normalization_is_kept_but_for_its_shift():
    made = {name: weights(6, seed=place) for place, name in enumerate("stm")}
    proto = make_model(
        [("Conv", "x w", "h"), ("BatchNormalization", "h s t m v", "k"), ("Relu", "k", "y")],
        {"w": weights(6, 4, 3, 3), **made, "v": np.abs(weights(6)) + 1},
        IMAGE,
    )
    result = check_exact(proto, IMAGES)
    assert [row.bias for row in result.report.layers] == ["t"]
    after = constants(result.model)
    assert not np.array_equal(after["t"], made["t"])


def test_a_bias_that_others_read_stays():
    proto = make_model(
        [("Gemm", "x w c", "h"), ("Relu", "h", "r"), ("Gemm", "r u c", "y")],
        {"w": weights(4, 4), "u": weights(4, 4, seed=1), "c": weights(4)},
    )
    result = check_exact(proto, DATA)
    assert [row.bias for row in result.report.layers] == ["", ""]


def test_batched_left_and_skip():
    proto = make_model(
        [
            ("MatMul", "x w", "h"),
            ("MatMul", "u h", "k"),
            ("Add", "k x", "m"),
            ("MatMul", "m v", "y"),
        ],
        {"w": weights(2, 4, 4), "u": weights(4, 4, seed=1), "v": weights(4, 3, seed=2)},
        {"x": [2, 4, 4]},
    )
    check_exact(proto, {"x": weights(12, 2, 4, 4)})


def test_layers_around_a_condition_and_sparse_constants():
    graphs = {
        name: helper.make_graph(
            [helper.make_node(op, ["h", "s"], [f"{name}_y"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)],
        )
        for name, op in (("then_branch", "Add"), ("else_branch", "Sub"))
    }
    proto = make_model(
        [
            ("Gemm", "x w", "h"),
            ("ReduceSum", "h", "sum", {"keepdims": 0}),
            ("Greater", "sum zero", "positive"),
            helper.make_node("If", ["positive"], ["k"], **graphs),
            ("Gemm", "k u", "m"),
            ("Add", "m p", "y"),
        ],
        {"w": weights(4, 4), "u": weights(4, 4), "zero": np.float32(0), "s": weights(4)},
    )
    sparse = helper.make_sparse_tensor(
        tensor("p", weights(2)), tensor("places", np.array([1, 3])), [4]
    )
    proto.graph.sparse_initializer.append(sparse)
    result = check_exact(proto, {"x": DATA[:, None]})
    assert len(result.report.layers) == 2


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_very_few_samples(samples, sparsity):
    result = prune(mlp(), DATA[:samples], sparsity=sparsity, threads=1)
    assert result.report.zeros == round(sparsity * result.report.prunable)
    assert all(np.isfinite(value).all() for value in constants(result.model).values())


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-20, 1e10])
def test_samples_that_say_nothing(samples, value):
    result = prune(mlp(), np.full((samples, 4), value, np.float32), sparsity=0.5, threads=1)
    assert result.report.zeros == round(0.5 * result.report.prunable)
    assert all(np.isfinite(value).all() for value in constants(result.model).values())


def test_one_image():
    proto = make_model([("Conv", "x w c", "y")], {"w": weights(3, 4, 6, 6), "c": weights(3)}, IMAGE)
    result = prune(proto, IMAGES[:1], sparsity=0.5, threads=1)
    assert kept_weights(result) == 3 * 4 * 36 // 2
