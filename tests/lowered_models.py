"""The lowered form of a model, run beside the original."""

import numpy as np
import onnxruntime as ort

from onnx_sipp.calibration.runner import Runner
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model


def run(proto, feed):
    """Outputs of a model by name."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


class LoweredModel:
    """A model, its lowered form, and its layers by name.

    Checks that the lowered form computes what the original does, and that what each layer makes is
    the product of its weight matrix with its patches.
    """

    def __init__(self, proto, feed, rtol=1e-4, atol=1e-5):
        self.model = lower(Model.load(proto))
        self.findings = find_layers(self.model)
        self.layers = {layer.name: layer for layer in self.findings.layers}
        self._feed = feed
        for name, value in run(proto, feed).items():
            np.testing.assert_allclose(self.tensor(name), value, rtol=rtol, atol=atol)
        for layer in self.layers.values():
            a = self.tensor(layer.activation)
            assert a.dtype == np.float32
            z = layer.scale * self.matrix(layer) @ layer.unfolding.unfold(a[None])
            y = self.tensor(layer.output)
            bias = 0 if layer.bias is None else self.model.read(layer.bias)
            if layer.neuron_axis is not None:
                y = np.moveaxis(y, layer.neuron_axis, -1) - bias
                z = z.reshape(-1, z.shape[-1]).T
            # Which output an entry is, follows from the layer alone up to the order of patches.
            np.testing.assert_allclose(np.sort(z.ravel()), np.sort(y.ravel()), rtol=1e-3, atol=1e-4)

    def matrix(self, layer):
        return layer.view.to_matrix(self.model.read(layer.weight))

    def tensor(self, *names):
        """A tensor of the lowered model, or several."""
        values = Runner(self.model, list(names)).run(self._feed)
        return values[names[0]] if len(names) == 1 else [values[name] for name in names]

    def activation(self, layer):
        return self.tensor(self.layers[layer].activation)

    def readers(self, name):
        return [node for node in self.model.proto.graph.node if name in node.input]
