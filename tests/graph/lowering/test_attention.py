"""The projection of an Attention node is a layer: from what it makes, attention follows by hand."""

import numpy as np
import pytest
from lowered_models import LoweredModel, run
from onnx import TensorProto, helper
from quantized_models import levels, model_of, scales
from small_models import make_model, weights

from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model

BATCH, STEPS, WIDTH, HEADS = 2, 3, 6, 2


def attend(projected):
    """Self-attention of queries, keys, values that stand side by side."""
    parts = np.split(projected, 3, axis=-1)
    q, k, v = (p.reshape(BATCH, STEPS, HEADS, -1).transpose(0, 2, 1, 3) for p in parts)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return (shares @ v).transpose(0, 2, 1, 3).reshape(BATCH, STEPS, -1)


def projected(found):
    layer = found.layers["n"]
    (reader,) = found.readers(layer.output)
    return found.tensor(reader.output[0])


@pytest.mark.parametrize("inputs", ["x w b", "x w b mask"])
def test_attention(inputs):
    values = {"w": weights(WIDTH, 3 * WIDTH), "b": weights(3 * WIDTH, seed=1)}
    if "mask" in inputs:
        values["mask"] = np.full(BATCH, STEPS, np.int32)
    node = helper.make_node(
        "Attention", inputs.split(), ["y"], name="n", domain="com.microsoft", num_heads=HEADS
    )
    feed = {"x": weights(BATCH, STEPS, WIDTH, seed=2)}
    proto = make_model([node], values, inputs={"x": feed["x"].shape}, domains=["com.microsoft"])
    found = LoweredModel(proto, feed)
    layer = found.layers["n"]
    assert (layer.op_type, layer.view.matrix) == ("com.microsoft.Attention", (1, 18, 6))
    expected = run(proto, feed)["y"]
    np.testing.assert_allclose(attend(projected(found)), expected, rtol=1e-4, atol=1e-5)
    assert found.findings.prunable == 6 * 18


@pytest.mark.parametrize("per_column", [False, True])
def test_quantized_attention(per_column):
    shape = (3 * WIDTH,) if per_column else (1,)
    values = {
        "w": levels("s8", WIDTH, 3 * WIDTH),
        "b": weights(3 * WIDTH),
        "xs": np.array([0.02], np.float32),
        "ws": scales(*shape) / 4,
        "xz": np.array([120], np.uint8),
        "wz": np.zeros(shape, np.int8),
    }
    node = helper.make_node(
        "QAttention",
        ["x", "w", "b", "xs", "ws", "", "xz", "wz"],
        ["y"],
        name="n",
        domain="com.microsoft",
        num_heads=HEADS,
    )
    feed = {"x": levels("u8", BATCH, STEPS, WIDTH)}
    proto = model_of([node], values, feed, {"y": TensorProto.FLOAT})
    found = LoweredModel(proto, feed)
    expected = run(proto, feed)["y"]
    np.testing.assert_allclose(attend(projected(found)), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("op_type", ["Attention", "QAttention"])
def test_a_weight_that_is_an_input(op_type):
    node = helper.make_node(op_type, ["x", "w", "b"], ["y"], domain="com.microsoft")
    inputs = {"x": [2, 3, 6], "w": [6, 18], "b": [18]}
    proto = make_model([node], {}, inputs, domains=["com.microsoft"])
    found = find_layers(lower(Model.load(proto)))
    assert (found.layers, found.skipped) == ((), ())
