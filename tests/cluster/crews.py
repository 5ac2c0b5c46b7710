"""Models and data for crews, and a run with one in this process."""

from contextlib import contextmanager

import numpy as np
from small_models import make_model, weights

from onnx_sipp import pipeline
from onnx_sipp.cluster.alone import Alone
from onnx_sipp.cluster.crew import Crew


def convolutions():
    """Images of a fixed size."""
    nodes = [
        ("Conv", "x a b", "h", {"name": "first", "pads": [1, 1, 1, 1]}),
        ("Relu", "h", "r"),
        ("Conv", "r c", "g", {"name": "second", "strides": [2, 2]}),
        ("GlobalAveragePool", "g", "p"),
        ("Flatten", "p", "f"),
        ("Gemm", "f z", "y", {"name": "last"}),
    ]
    made = {"a": weights(6, 2, 3, 3), "b": weights(6), "c": weights(8, 6, 3, 3, seed=1)}
    return make_model(nodes, {**made, "z": weights(8, 3, seed=2)}, inputs={"x": ["n", 2, 8, 8]})


DATA = weights(90, 4, seed=5)
IMAGES = weights(50, 2, 8, 8, seed=6)


@contextmanager
def alone(scheduler):
    """In the place of `hired`."""
    yield Crew(Alone) if scheduler else None


def with_crew(monkeypatch, work, *arguments, **options):
    """Call `prune`, or something like it, with a crew in this process."""
    for module in (pipeline, __import__("onnx_sipp.calibrating", fromlist=["hired"]),
                   __import__("onnx_sipp.sweeping.sweep", fromlist=["hired"])):  # fmt: skip
        monkeypatch.setattr(module, "hired", alone)
    return work(*arguments, scheduler="local:1", **options)


def assert_alike(one, other):
    """Check that two pruned models differ by no more than rounding."""
    for name, mask in one.masks.items():
        assert (mask != other.masks[name]).mean() < 0.01
    for mine, theirs in zip(one.report.outputs, other.report.outputs, strict=True):
        np.testing.assert_allclose(mine.relative_error, theirs.relative_error, rtol=0.02)
    for mine, theirs in zip(one.report.layers, other.report.layers, strict=True):
        np.testing.assert_allclose(mine.epsilon_worst, theirs.epsilon_worst, rtol=1e-3)
