"""Values of constants that others are computed from."""

import numpy as np
import pytest
from onnx import helper

from onnx_sipp.graph.lowering.evaluation import Evaluator
from onnx_sipp.graph.node import NotPrunable

CONSTANTS = {"w": np.zeros((2, 3), np.float32), "one": np.array([1]), "i": np.array([1, 0])}


def evaluator(*nodes):
    found = Evaluator([helper.make_opsetid("", 17)], CONSTANTS.__getitem__)
    for kind, inputs, output in nodes:
        found.add(helper.make_node(kind, inputs.split(), [output]))
    return found


def test_values():
    found = evaluator(("Mul", "m m", "k"), ("Gather", "n one", "m"), ("Shape", "w", "n"))
    assert found.value("k").tolist() == [9]
    assert found.value("m").tolist() == [3]
    assert found.value("one").tolist() == [1]


def test_what_comes_first():
    found = evaluator(("Mul", "m m", "k"), ("Shape", "w", "n"), ("Gather", "n one", "m"))
    assert [node.op_type for node in found.upstream("k")] == ["Shape", "Gather", "Mul"]
    assert found.upstream("w") == []


def test_what_cannot_be_evaluated():
    with pytest.raises(NotPrunable, match="Reshape cannot be evaluated"):
        evaluator(("Reshape", "w i", "k")).value("k")
