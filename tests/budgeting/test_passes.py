"""Passes by several goals, over one calibration."""

import numpy as np
from small_models import make_model, weights

from onnx_sipp.budgeting.passes import Passes
from onnx_sipp.checked import checked_options
from onnx_sipp.preparing import prepare
from onnx_sipp.progress import Silent
from onnx_sipp.pruning.methods import Goal

# The weight w is that of two layers; where little is kept, some of its neurons are read by nobody.
NODES = [
    ("MatMul", "x a", "h"), ("Relu", "h", "r"),
    ("MatMul", "r w", "i"), ("Relu", "i", "s"),
    ("MatMul", "s w", "j"), ("Relu", "j", "t"),
    ("MatMul", "t b", "y"),
]  # fmt: skip
SHAPES = {"a": (6, 10), "w": (10, 10), "b": (10, 4)}
PROTO = make_model(
    NODES,
    {name: weights(*shape, seed=n) for n, (name, shape) in enumerate(SHAPES.items())},
    {"x": ["n", 6]},
    {"y": ["n", 4]},
)


def test_a_goal_leaves_nothing_behind_for_the_next_one():
    def kept(*sparsities):
        prepared = prepare(PROTO, weights(80, 6, seed=5), checked_options({}), Silent())
        passes = Passes(prepared, Goal(), 0.3)
        for sparsity in sparsities:
            outcome = passes.careful(prepared.goal(sparsity))
        return outcome

    after, alone = kept(0.9, 0.5), kept(0.5)
    assert any(idle.any() for idle in kept(0.9).respent.neurons)
    for weight in SHAPES:
        np.testing.assert_array_equal(after.model.read(weight), alone.model.read(weight))
