"""Batches of sequences of different lengths: which steps are data, and what came before each."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from onnx_sipp.graph.lowering.sketch import Sketch

__all__ = ["Steps"]


class Steps:
    """The steps of some sequences; tensors are ``[batch, steps, features]``.

    Args:
        sketch: takes the nodes. Lengths need opset 9.
        lengths: name of the sequences' lengths, ``""`` if all steps are data.
        like: a tensor of these sequences.
    """

    def __init__(self, sketch: Sketch, lengths: str, like: str) -> None:
        self._sketch, self._lengths = sketch, lengths
        if lengths:
            count = sketch.slice(sketch.add("Shape", like), 0, 1, 2)
            one = numpy_helper.from_array(np.ones(1, np.int64))
            # Range, which says it better, came with opset 11.
            self._steps = sketch.add("NonZero", sketch.add("ConstantOfShape", count, value=one))
            self._ends = sketch.reshape(sketch.cast(lengths, TensorProto.INT64), [-1, 1])
            inside = sketch.add("Less", self._steps, self._ends)
            self._inside = sketch.reshape(sketch.add("Transpose", inside, perm=[1, 0]), [-1])

    @property
    def axes(self) -> int:
        """Rank of what `data` returns."""
        return 2 if self._lengths else 3

    def data(self, x: str, features: int) -> str:
        """Leave out the steps beyond the end of their sequence.

        What is left stands step by step, not sequence by sequence: samples that were run together
        must not seem to fall apart in rows of equal number, for other samples will not.
        """
        if not self._lengths:
            return x
        by_step = self._sketch.add("Transpose", x, perm=[1, 0, 2])
        rows = self._sketch.reshape(by_step, [-1, features])
        return self._sketch.add("Compress", rows, self._inside, axis=0)

    def before(self, states: str, initial: str, *, reverse: bool) -> str:
        """The states one step earlier.

        Args:
            states: after each step.
            initial: before the first step, ``[batch, 1, features]``; ``""`` for zeros.
            reverse: the last step of a sequence comes first.
        """
        sketch = self._sketch
        if not initial:
            first = sketch.slice(states, 1, 0, 1)
            initial = sketch.add("Sub", first, first)
        if not reverse:
            return sketch.add("Concat", initial, sketch.slice(states, 1, 0, -1), axis=1)
        later = sketch.slice(states, 1, 1, np.iinfo(np.int32).max)
        earlier = sketch.add("Concat", later, initial, axis=1)
        if not self._lengths:
            return earlier
        at_end = sketch.add("Equal", self._steps, sketch.add("Sub", self._ends, sketch.constant(1)))
        return sketch.add("Where", sketch.reshape(at_end, [0, 0, 1]), initial, earlier)
