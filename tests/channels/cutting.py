"""Couples a model and cuts it, for tests."""

from dataclasses import dataclass, field

import numpy as np
import onnxruntime as ort
from onnx import helper
from small_models import make_model, weights

from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.samples import open_samples
from onnx_sipp.channels.checking import unread
from onnx_sipp.channels.run import couple
from onnx_sipp.channels.surgery import cut_out
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.store import TensorStore
from onnx_sipp.weight_groups import group_weights

SHAPE = ("n", 4, 8, 8)


@dataclass
class Coupled:
    """A model with its groups."""

    lowered: object
    weights: object
    coupling: object
    feed: dict = field(default_factory=dict)

    def group(self, name):
        """The group whose name starts so."""
        (found,) = [g for g in self.coupling.groups if g.name.startswith(name)]
        return found

    def reason(self, name):
        return self.group(name).reason

    def errors(self, gone):
        """Outputs of the model without some units, less those where nothing reads them."""
        masked = unread(self.lowered, self.weights, self.coupling, gone)
        cut = cut_out(self.lowered.plan.original, self.coupling.trace, self.coupling.numbers(gone))
        before = run(masked.runnable()[0], self.feed)
        after = run(cut.SerializeToString(), self.feed)
        return cut, [a - b for a, b in zip(before, after, strict=True)]


def node(op_type, inputs, outputs, attributes=None):
    """A node; its operands are lists, so that one can be left out."""
    return helper.make_node(op_type, inputs, outputs, **(attributes or {}))


def run(data, feed):
    """Outputs of a serialised model."""
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feed)


def coupled(model, align=None, **options):
    """Couple a model on two samples."""
    dense = Model.load(model)
    lowered = lower(dense, spare_biases=False)
    findings = find_layers(lowered, **options)
    samples = open_samples(
        dense, None, num_samples=4, seed=0, input_shapes={}, providers=None, states=None,
        state_reset=None, store=TensorStore(),
    )  # fmt: skip
    execution = Execution(samples.inputs, TensorStore(), 1)
    built = group_weights(lowered, findings.layers)
    feeds = list(samples.calibration)[:2]
    coupling = couple(lowered, findings, built, execution, feeds, align)
    return Coupled(lowered, built, coupling, feeds[0])


def between(nodes, constants, channels=8, read=8, opset=17):
    """Nodes from ``a``, which a Conv makes with so many channels, to ``b``, which one reads."""
    return make_model(
        [
            node("Conv", ["x", "make.w", "make.b"], ["a"], {"name": "make", "pads": [1] * 4}),
            *(node(*parts) for parts in nodes),
            node("Conv", ["b", "read.w"], ["y"], {"name": "read"}),
        ],
        {
            "make.w": weights(channels, 4, 3, 3),
            "make.b": weights(channels, seed=1),
            "read.w": weights(4, read, 1, 1, seed=2),
            **constants,
        },
        inputs={"x": SHAPE},
        opset=opset,
    )


def every_other(group):
    """Half of the units of a group."""
    return np.arange(0, group.count, 2)
