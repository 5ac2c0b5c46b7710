"""The same layer twice: as its operator, and as plain products of the very same input vectors."""

import numpy as np
from onnx import numpy_helper
from small_models import make_model

import onnx_sipp
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.model import Model


def stored(proto):
    """Elements of all initializers by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def refitted(proto, data, sparsity=0.5, **options):
    """Prune with the default method; returns the result and the initializers after."""
    result = onnx_sipp.prune(proto, data, sparsity=sparsity, threads=1, **options)
    return result, stored(result.model)


def as_plain_conv(proto, feeds):
    """The one layer of a model as a Conv of kernel 1 on its patches.

    Args:
        proto: of one input ``x``, which its layer reads, and a bias ``b`` if any.
        feeds: one array per sample.

    Returns:
        The model, with weight ``w`` as ``[group * out, fan_in, 1]``, and its feeds.
    """
    model = Model.load(proto)
    (layer,) = find_layers(model).layers
    groups, _, fan_in = layer.view.matrix
    matrix = layer.view.to_matrix(model.read(layer.weight)).reshape(-1, fan_in, 1)
    patches = [layer.unfolding.unfold(x[None]).reshape(1, groups * fan_in, -1) for x in feeds]
    bias = {"b": model.read("b")} if "b" in model.stored else {}
    plain = make_model(
        [("Conv", "x w b" if bias else "x w", "y", {"group": groups})],
        {"w": matrix, **bias},
        inputs={"x": patches[0].shape},
    )
    return plain, [{"x": value} for value in patches]


def assert_same_as_plain_conv(proto, feeds, **options):
    """A model of one layer ends like the Conv of kernel 1 on its patches."""
    plain, patches = as_plain_conv(proto, feeds)
    model = Model.load(proto)
    (layer,) = find_layers(model).layers
    ours, found = refitted(proto, [{"x": x} for x in feeds], **options)
    theirs, expected = refitted(plain, patches, **options)
    matrix = layer.view.to_matrix(found[layer.weight])
    np.testing.assert_allclose(
        matrix.ravel(), expected["w"].ravel(), rtol=1e-5, atol=1e-5 * np.abs(expected["w"]).max()
    )
    if "b" in expected:
        np.testing.assert_allclose(found["b"], expected["b"], rtol=1e-5, atol=1e-5)
    assert ours.report.zeros == theirs.report.zeros == round(0.5 * matrix.size)
    np.testing.assert_allclose(
        ours.report.layers[0].measured_error, theirs.report.layers[0].measured_error, rtol=1e-3
    )
