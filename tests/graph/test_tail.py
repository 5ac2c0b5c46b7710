"""What follows a layer: bias, BatchNormalization, skip path."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper
from small_models import constant, make_model, weights

from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.tail import find_tail

IMAGE = {"x": ["n", 2, 5, 5]}


def tail_of(proto, place=0):
    model = lower(Model.load(proto))
    return find_tail(model, Flow(model), find_layers(model).layers[place])


def normalization(channels, seed=5):
    made = {
        name: weights(channels, seed=seed + place) for place, name in enumerate(("s", "t", "m"))
    }
    return {**made, "v": np.abs(weights(channels, seed=seed + 3)) + 0.1}


def run(proto, outputs, x):
    copy = type(proto)()
    copy.CopyFrom(proto)
    for name in outputs:
        if name not in [value.name for value in copy.graph.output]:
            copy.graph.output.append(helper.make_empty_tensor_value_info(name))
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(outputs, {"x": x})


def check_gain(proto, product, x, axis):
    """``y = gain · W a + offset`` for the product W a that a twin of the model computes."""
    tail = tail_of(proto)
    (y,) = run(proto, [tail.output], x)
    shape = [-1 if at == y.ndim + axis else 1 for at in range(y.ndim)]
    expected = tail.gain.reshape(shape) * product + tail.offset.reshape(shape)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4)
    return tail


def check_bias(proto, axis, x):
    """Raising the bias by ``factor · d`` raises y by ``gain · d``."""
    tail = tail_of(proto)
    model = Model.load(proto).copy()
    change = np.linspace(-1, 1, tail.gain.size)
    old = model.read(tail.bias.name)
    raised = old + (tail.bias.factor * change).reshape(old.shape)
    model.replace(tail.bias.name, raised.astype(np.float32))
    (before,), (after,) = (run(p, [tail.output], x) for p in (proto, model.proto))
    shape = [-1 if at == before.ndim + axis else 1 for at in range(before.ndim)]
    expected = np.broadcast_to((tail.gain * change).reshape(shape), before.shape)
    np.testing.assert_allclose(after - before, expected, rtol=1e-3, atol=1e-4)


ROWS = weights(6, 4, seed=8)
IMAGES = weights(2, 2, 5, 5, seed=8)


@pytest.mark.parametrize("attributes", [{}, {"alpha": 0.5}, {"alpha": -2.0, "beta": 3.0}])
@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_gemm(attributes, shape):
    w, c = weights(4, 3), weights(*shape, seed=1)
    proto = make_model([("Gemm", "x w c", "y", attributes)], {"w": w, "c": c})
    tail = check_gain(proto, ROWS @ w, ROWS, -1)
    assert (tail.output, tail.bias.name, tail.skip) == ("y", "c", None)
    check_bias(proto, -1, ROWS)


def test_gemm_without_a_bias():
    tail = tail_of(make_model([("Gemm", "x w", "y", {"alpha": 2.0})], {"w": weights(4, 3)}))
    assert tail.bias is None
    np.testing.assert_array_equal(tail.gain, [2, 2, 2])
    np.testing.assert_array_equal(tail.offset, [0, 0, 0])


def test_gemm_whose_bias_does_not_count():
    proto = make_model(
        [("Gemm", "x w c", "h", {"beta": 0.0}), ("Add", "h d", "y")],
        {"w": weights(4, 3), "c": weights(3), "d": weights(3, seed=2)},
    )
    tail = check_gain(proto, ROWS @ weights(4, 3), ROWS, -1)
    assert tail.bias.name == "d"


@pytest.mark.parametrize("shape", [(), (1,), (6, 3), (6, 1)])
def test_gemm_whose_bias_is_not_per_neuron(shape):
    proto = make_model([("Gemm", "x w c", "y")], {"w": weights(4, 3), "c": weights(*shape)})
    assert tail_of(proto) is None


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 1, 3)])
def test_matmul_and_add(left, shape):
    w, c = weights(4, 3), weights(*shape, seed=1)
    proto = make_model(
        [("MatMul", "x w", "h"), ("Add", "c h" if left else "h c", "y")], {"w": w, "c": c}
    )
    x = weights(2, 6, 4) if len(shape) == 3 else ROWS
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, x.shape))
    tail = check_gain(proto, x @ w, x, -1)
    assert (tail.output, tail.bias.name) == ("y", "c")
    check_bias(proto, -1, x)


def test_matmul_with_the_weight_on_the_left():
    proto = make_model(
        [("MatMul", "w x", "h"), ("Add", "h c", "y")],
        {"w": weights(3, 4), "c": weights(3, 1, seed=1)},
        {"x": [4, 6]},
    )
    tail = check_gain(proto, weights(3, 4) @ ROWS.T, ROWS.T, -2)
    assert tail.bias.name == "c"


def test_conv_bias():
    nodes = [("Conv", "x w c", "y")]
    proto = make_model(nodes, {"w": weights(3, 2, 3, 3), "c": weights(3)}, IMAGE)
    plain = make_model([("Conv", "x w", "y")], {"w": weights(3, 2, 3, 3)}, IMAGE)
    tail = check_gain(proto, run(plain, ["y"], IMAGES)[0], IMAGES, -3)
    assert tail.bias.name == "c"
    check_bias(proto, -3, IMAGES)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 3)])
def test_a_factor_before_the_bias(left, shape):
    proto = make_model(
        [("MatMul", "x w", "h"), ("Mul", "f h" if left else "h f", "k"), ("Add", "k c", "y")],
        {"w": weights(4, 3), "f": weights(*shape, seed=7), "c": weights(3, seed=1)},
    )
    tail = check_gain(proto, ROWS @ weights(4, 3), ROWS, -1)
    assert (tail.output, tail.bias.name) == ("y", "c")
    check_bias(proto, -1, ROWS)


@pytest.mark.parametrize("factor", ["x", "s"])
def test_a_factor_that_is_no_constant_per_neuron_ends_the_tail(factor):
    proto = make_model(
        [("MatMul", "x w", "h"), ("Mul", f"h {factor}", "y")],
        {"w": weights(4, 4), "s": weights(6, 1)},
    )
    tail = tail_of(proto)
    assert (tail.output, tail.bias) == ("h", None)


@pytest.mark.parametrize("op", ["Add", "Mul"])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_a_mask_ends_the_tail(op, shape):
    mask = np.full(shape, -np.inf, np.float32)
    nodes = [("MatMul", "x w", "h"), (op, "h m", "y")]
    assert tail_of(make_model(nodes, {"w": weights(4, 4), "m": mask})).output == "h"


@pytest.mark.parametrize("shape", [(2, 3), (1, 1, 2, 3)])
def test_neurons_that_a_reshape_parts(shape):
    proto = make_model(
        [("MatMul", "x w", "h"), ("Reshape", "h r", "k"), ("Add", "k c", "y")],
        {"w": weights(4, 6), "r": np.array([0, 0, 2, 3]), "c": weights(*shape, seed=1)},
        {"x": ["n", 5, 4]},
    )
    tail = tail_of(proto)
    assert (tail.output, tail.bias.name) == ("y", "c")
    np.testing.assert_allclose(tail.offset, weights(6, seed=1))
    x = weights(2, 5, 4, seed=3)
    (y,) = run(proto, ["y"], x)
    np.testing.assert_allclose(y.reshape(2, 5, 6), x @ weights(4, 6) + tail.offset, rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "bias"),
    [([0, 0, 2, 3], (3,)), ([0, 2, -1], (2, 3)), ([-1, 6], (6,)), ([0, 6, 0], (6, 1))],
)
def test_what_is_no_parting_of_neurons_ends_the_tail(shape, bias):
    proto = make_model(
        [("MatMul", "x w", "h"), ("Reshape", "h r", "k"), ("Add", "k c", "y")],
        {"w": weights(4, 6), "r": np.array(shape), "c": weights(*bias, seed=1)},
        {"x": ["n", 5, 4]},
    )
    assert tail_of(proto).bias is None


TRANSPOSED = {
    "bias": ([("ConvTranspose", "x w c", "y")], "c"),
    "batch normalization": (
        [("ConvTranspose", "x w", "h"), ("BatchNormalization", "h s t m v", "y")],
        "t",
    ),
    "both": ([("ConvTranspose", "x w c", "h"), ("BatchNormalization", "h s t m v", "y")], "c"),
}


@pytest.mark.parametrize(("nodes", "bias"), TRANSPOSED.values(), ids=TRANSPOSED)
def test_conv_transpose(nodes, bias):
    values = {"w": weights(2, 3, 3, 3), "c": weights(3, seed=9), **normalization(3)}
    plain = make_model([("ConvTranspose", "x w", "y")], {"w": values["w"]}, IMAGE)
    proto = make_model(nodes, values, IMAGE)
    tail = check_gain(proto, run(plain, ["y"], IMAGES)[0], IMAGES, -3)
    assert tail.bias.name == bias
    check_bias(proto, -3, IMAGES)


@pytest.mark.parametrize("biased", [False, True])
def test_conv_and_batch_normalization(biased):
    bias = {"c": weights(3, seed=9)} if biased else {}
    proto = make_model(
        [
            ("Conv", "x w c" if biased else "x w", "h"),
            ("BatchNormalization", "h s t m v", "y", {"epsilon": 1e-3}),
        ],
        {"w": weights(3, 2, 3, 3), **bias, **normalization(3)},
        IMAGE,
    )
    plain = make_model([("Conv", "x w", "y")], {"w": weights(3, 2, 3, 3)}, IMAGE)
    tail = check_gain(proto, run(plain, ["y"], IMAGES)[0], IMAGES, -3)
    assert tail.bias.name == ("c" if biased else "t")
    check_bias(proto, -3, IMAGES)


def test_gemm_and_batch_normalization():
    proto = make_model(
        [("Gemm", "x w", "h", {"alpha": 0.5}), ("BatchNormalization", "h s t m v", "y")],
        {"w": weights(4, 3), **normalization(3)},
    )
    tail = check_gain(proto, ROWS @ weights(4, 3), ROWS, -1)
    assert tail.bias.name == "t"
    check_bias(proto, -1, ROWS)


def test_batch_normalization_across_the_neurons_is_no_tail():
    """A Gemm's constant on the left has its neurons along axis 0, the channels are along 1."""
    proto = make_model(
        [("Gemm", "w x", "h"), ("BatchNormalization", "h s t m v", "y")],
        {"w": weights(3, 4), **normalization(3)},
        {"x": [4, 3]},
    )
    assert tail_of(proto).output == "h"


def test_a_rank_that_grows_ends_the_tail():
    proto = make_model(
        [("Conv", "x w", "h"), ("Add", "h c", "y")],
        {"w": weights(3, 2, 3, 3), "c": weights(1, 1, 3, 1, 1)},
        IMAGE,
    )
    assert tail_of(proto).output == "h"


def test_batch_normalization_in_training_is_no_tail():
    training = helper.make_node(
        "BatchNormalization",
        ["h", "s", "t", "m", "v"],
        ["y", "m2", "v2"],
        training_mode=1,
    )
    proto = make_model(
        [("Conv", "x w", "h"), training], {"w": weights(3, 2, 3, 3), **normalization(3)}, IMAGE
    )
    assert tail_of(proto).output == "h"


def test_a_shared_bias_is_not_touched():
    nodes = [("Gemm", "x w c", "h"), ("Gemm", "x u c", "k"), ("Add", "h k", "y")]
    proto = make_model(nodes, {"w": weights(4, 3), "u": weights(4, 3), "c": weights(3)})
    tails = [tail_of(proto, 0), tail_of(proto, 1)]
    assert [tail.bias for tail in tails] == [None, None]
    assert [tail.skip for tail in tails] == ["k", "h"]


def test_a_bias_that_is_an_output_is_not_touched():
    proto = make_model([("Gemm", "x w c", "y")], {"w": weights(4, 3), "c": weights(3)})
    proto.graph.output.append(helper.make_tensor_value_info("c", 1, [3]))
    assert tail_of(proto).bias is None


def test_a_computed_bias_has_no_tail():
    proto = make_model(
        [("Neg", "c", "d"), ("Gemm", "x w d", "y")], {"w": weights(4, 3), "c": weights(3)}
    )
    assert tail_of(proto) is None


def test_a_bias_of_a_constant_node():
    proto = make_model([constant("c", weights(3)), ("Gemm", "x w c", "y")], {"w": weights(4, 3)})
    assert tail_of(proto).bias.name == "c"


def test_skip_path():
    proto = make_model(
        [("Relu", "x", "r"), ("MatMul", "r w", "h"), ("Add", "h c", "k"), ("Add", "x k", "y")],
        {"w": weights(4, 4), "c": weights(4)},
    )
    tail = tail_of(proto)
    assert (tail.output, tail.bias.name, tail.skip) == ("k", "c", "x")


@pytest.mark.parametrize("other", ["h", "k"])
def test_no_skip_path(other):
    """A tensor added to itself, or one that more nodes read."""
    proto = make_model(
        [("MatMul", "x w", "h"), ("Relu", "h", "k"), ("Add", f"h {other}", "y")],
        {"w": weights(4, 4)},
    )
    tail = tail_of(proto)
    assert (tail.output, tail.skip) == ("h", None)


def test_a_graph_output_ends_the_tail():
    proto = make_model(
        [("MatMul", "x w", "h"), ("Add", "h c", "y")],
        {"w": weights(4, 3), "c": weights(3)},
        outputs=("y", "h"),
    )
    tail = tail_of(proto)
    assert (tail.output, tail.bias) == ("h", None)


def test_batched_weights_have_no_tail():
    proto = make_model([("MatMul", "x w", "y")], {"w": weights(2, 4, 3)}, {"x": [2, "n", 4]})
    assert tail_of(proto) is None


@pytest.mark.parametrize(
    ("activation", "attributes", "span"),
    [
        ("Relu", {}, (0, np.inf)),
        ("HardSwish", {}, (-3, np.inf)),
        ("HardSigmoid", {"alpha": 0.25, "beta": 0.5}, (-2, 2)),
        ("HardSigmoid", {"alpha": -0.25}, (-np.inf, np.inf)),
        ("Tanh", {}, (-np.inf, np.inf)),
    ],
)
def test_span_of_the_next_node(activation, attributes, span):
    proto = make_model(
        [("MatMul", "x w", "h"), (activation, "h", "y", attributes)], {"w": weights(4, 6)}
    )
    assert tail_of(proto).span == span


def test_span_of_clip():
    def clip(names, **constants):
        nodes = [("MatMul", "x w", "h"), ("Clip", f"h {names}", "y")]
        return tail_of(make_model(nodes, {"w": weights(4, 6), **constants})).span

    low, high = np.float32(0), np.float32(6)
    assert clip("low high", low=low, high=high) == (0, 6)
    assert clip("low", low=low) == (0, np.inf)
    assert clip(" high".replace(" ", "")) == (-np.inf, np.inf)  # as an input of the model


def test_span_behind_a_skip_path():
    nodes = [("MatMul", "x w", "h"), ("Add", "h x", "s"), ("Relu", "s", "y")]
    tail = tail_of(make_model(nodes, {"w": weights(4, 4)}))
    assert (tail.skip, tail.span) == ("x", (0, np.inf))
    assert (tail.without_skip().skip, tail.without_skip().span) == (None, (-np.inf, np.inf))
    # What another node reads too is not free.
    nodes.append(("Neg", "s", "z"))
    assert tail_of(make_model(nodes, {"w": weights(4, 4)})).span == (-np.inf, np.inf)
