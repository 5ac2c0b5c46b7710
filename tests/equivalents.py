"""The same layer twice: as its operator, and as a plain product of the very same input vectors."""

import numpy as np
from small_models import make_model, without_payloads

import onnx_sipp
from onnx_sipp.calibration.runner import Runner
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.tail import find_tail


def layer_of(model, name):
    """The layer of a lowered model with this name; of a model of one layer, that."""
    layers = find_layers(model).layers
    return next(layer for layer in layers if name in ("", layer.name))


def bias_of(model, layer):
    """The constant that takes up a change of the bias, and the product it stands for; or None."""
    place = bias_place(model, layer)
    return None if place is None else model.read(place.name).ravel() / place.factor


def bias_place(model, layer):
    tail = find_tail(model, Flow(model), layer)
    return None if tail is None else tail.bias


def refuse_other_changes(before, after, sites):
    """Check that two models are the same but for the elements at some sites."""
    copies = []
    for proto in (before, after):
        copy = type(proto)()
        copy.CopyFrom(proto)
        without_payloads(copy, sites)
        copies.append(copy)
    assert copies[0] == copies[1]


def as_plain_conv(proto, feeds, name=""):
    """A layer as a Conv of kernel 1 on its patches.

    Args:
        proto: a model.
        feeds: samples.
        name: of the layer.

    Returns:
        The model, with weight ``w`` as ``[group * out, fan_in, 1]``, and its feeds.
    """
    model = lower(Model.load(proto))
    layer = layer_of(model, name)
    groups, _, fan_in = layer.view.matrix
    matrix = layer.view.to_matrix(model.read(layer.weight)).reshape(-1, fan_in, 1)
    bias = bias_of(model, layer)
    runner = Runner(model, [layer.activation])
    seen = [runner.run(feed)[layer.activation] for feed in feeds]
    patches = [layer.unfolding.unfold(x[None]).reshape(1, groups * fan_in, -1) for x in seen]
    plain = make_model(
        [("Conv", "x w" if bias is None else "x w b", "y", {"group": groups})],
        {"w": matrix} if bias is None else {"w": matrix, "b": bias.astype(np.float32)},
        inputs={"x": [1, groups * fan_in, "n"]},
    )
    return plain, [{"x": value} for value in patches]


def pruned_alone(proto, feeds, name="", **options):
    """Prune one layer of a model by the default method; its matrix, bias and report."""
    model = lower(Model.load(proto))
    others = {layer.name for layer in find_layers(model).layers} - {layer_of(model, name).name}
    # A plain Conv could get a bias that the node it stands for has no place for.
    options = {"sparsity": 0.5, "threads": 1, "new_biases": False, **options}
    result = onnx_sipp.prune(proto, feeds, exclude_nodes=sorted(others), **options)
    after = lower(Model.load(result.model))
    layer = layer_of(after, name)
    place = bias_place(after, layer)
    places = [layer.weight] if place is None else [layer.weight, place.name]
    written = {site for place in places for site in after.plan.sites[place]}
    refuse_other_changes(proto, result.model, written)
    matrix = layer.view.to_matrix(after.read(layer.weight))
    return matrix, bias_of(after, layer), result.report


def assert_same_as_plain_conv(proto, feeds, name="", rtol=1e-5, levels=None, **options):
    """A layer ends like the Conv of kernel 1 on its patches.

    Args:
        proto: a model.
        feeds: samples.
        name: of the layer.
        rtol: what may differ.
        levels: distance of the levels that weights are rounded to, for a quantised layer.
        options: of `prune`.
    """
    plain, patches = as_plain_conv(proto, feeds, name)
    found, bias, ours = pruned_alone(proto, feeds, name, **options)
    expected, expected_bias, theirs = pruned_alone(plain, patches, **options)
    expected = expected.reshape(found.shape)
    np.testing.assert_array_equal(found == 0, expected == 0)
    if levels is None:
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * scale)
    else:  # a weight that is kept does not become the level of zero
        assert np.all(
            np.abs(found - expected) <= np.where(abs(expected) < levels, 1, 0.51) * levels
        )
    assert (bias is None) == (expected_bias is None)
    if bias is not None:
        tolerance = rtol if levels is None else rtol + 0.01 * np.abs(expected_bias).max()
        np.testing.assert_allclose(bias, expected_bias, rtol=rtol, atol=tolerance)
    assert ours.zeros == theirs.zeros == round(0.5 * found.size) == np.sum(found == 0)
    (own,), (other,) = ours.layers, theirs.layers
    if levels is None:
        np.testing.assert_allclose(own.measured_error, other.measured_error, rtol=1e-3)
