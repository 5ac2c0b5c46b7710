"""Check what is said to be dead: it can be changed at will, and nothing comes of it."""

import numpy as np
import onnxruntime as ort
from onnx import helper
from small_models import make_model, weights

from onnx_sipp.graph.dead import dead_paths
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.tail import find_tail

IMAGE = {"x": ["n", 3, 4, 4]}
IMAGES = weights(5, 3, 4, 4, seed=9)

# Of `chain`: neurons that give a constant, its values, and a neuron that nobody reads.
CONSTANT = {1: -0.5, 2: 0.75}
UNREAD = 4


def run(proto, x, name="x"):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {name: x})


def facts_of(proto, exclude=()):
    """Facts by layer name, as pruning asks for them."""
    model = lower(Model.load(proto))
    flow = Flow(model)
    layers = find_layers(model, exclude).layers
    uses = [layer.weight for layer in layers]
    folds = {
        layer.index: _bias(model, flow, layer) is not None
        for layer in layers
        if uses.count(layer.weight) == 1
    }
    found = dead_paths(model, flow, layers, folds)
    return {layer.name: facts for layer, facts in zip(layers, found, strict=True)}


def _bias(model, flow, layer):
    tail = find_tail(model, flow, layer)
    return None if tail is None else tail.bias


def check(proto, x=IMAGES, exclude=()):
    """Fold constants, put noise into unread neurons: the outputs stay. Returns the facts."""
    facts = facts_of(proto, exclude)
    model = lower(Model.load(proto))
    flow = Flow(model)
    for layer in find_layers(model, exclude).layers:
        found = facts[layer.name]
        old = model.read(layer.weight)
        matrix = layer.view.to_matrix(old).astype(np.float64)
        gone = np.broadcast_to(found.removable[:, None, :], matrix.shape)
        lost = np.where(gone, matrix * np.where(gone, found.constants[:, None, :], 0), 0)
        noise = weights(*matrix.shape, seed=7)
        new = np.where(found.unread[..., None], noise, np.where(gone, 0, matrix))
        model.replace(layer.weight, layer.view.to_stored(new).astype(old.dtype))
        bias = _bias(model, flow, layer)
        if bias is not None:
            stored = model.read(bias.name)
            shift = (bias.factor * lost.sum(axis=-1).ravel()).reshape(stored.shape)
            model.replace(bias.name, (stored + shift).astype(stored.dtype))
    for before, after in zip(run(proto, x), run(model.result().proto, x), strict=True):
        scale = max(1.0, float(np.abs(before).max()))
        np.testing.assert_allclose(after, before, rtol=2e-5, atol=2e-5 * scale)
    return facts


def producer(channels=6, seed=0):
    """Weight ``[channels, 3, 3, 3]`` and bias, with the neurons of `CONSTANT`."""
    weight, bias = weights(channels, 3, 3, 3, seed=seed), weights(channels, seed=seed + 1)
    for neuron, value in CONSTANT.items():
        weight[neuron] = 0
        bias[neuron] = value
    return weight, bias


def chain(
    middle,
    constants=None,
    *,
    inputs=6,
    per_channel=1,
    dense=False,
    skips=(UNREAD,),
    opset=17,
    **conv,
):
    """A convolution with dead neurons, nodes from ``h`` to ``m``, and a layer that reads ``m``.

    Args:
        middle: nodes.
        constants: that they need.
        inputs: channels of ``m``.
        per_channel: inputs of a dense reader for each of them.
        dense: whether the reader is a Gemm.
        skips: channels that it does not read.
        opset: of the model.
        conv: attributes of the reader, if it is a Conv.
    """
    weight, bias = producer()
    if dense:
        reader = weights(inputs * per_channel, 2, seed=5)
        reader.reshape(inputs, per_channel, 2)[list(skips)] = 0
    else:
        reader = weights(2, inputs, 1, 1, seed=5)
        reader[:, list(skips)] = 0
    last = ("Gemm" if dense else "Conv", "m v c", "y", {"name": "reader", **conv})
    proto = make_model(
        [("Conv", "x w b", "h", {"name": "made", "pads": [1, 1, 1, 1]}), *middle, last],
        {"w": weight, "b": bias, "v": reader, "c": weights(2), **(constants or {})},
        IMAGE,
    )
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("", opset))
    return proto


def unread(facts):
    """Places of unread neurons."""
    return set(np.flatnonzero(facts.unread).tolist())


def constants(facts):
    """Values of constant inputs by place, of all groups one after the other."""
    values = facts.constants.ravel()
    return {int(at): float(values[at]) for at in np.flatnonzero(~np.isnan(values))}
