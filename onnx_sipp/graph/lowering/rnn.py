"""LSTM, GRU and RNN: what W and R multiply, step by step, as plain layers beside the node.

Per direction there is a layer of W on the input sequence and one of R on the hidden states that a
copy of the node yields, shifted by one step. The halves of B are their biases. Their sum is what
the gates see (peepholes apart): the refit of R repays what the pruned W leaves wrong. Where GRU's
candidate state sees ``r * h`` in the place of h, its rows of R are a layer of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_sipp.graph.lowering.activations import activate, parameters_of, refuse_unknown
from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.lowering.quantized import levels_of
from onnx_sipp.graph.lowering.sequences import Steps
from onnx_sipp.graph.lowering.sketch import Sketch, copied
from onnx_sipp.graph.node import NotPrunable, attributes

__all__ = ["dynamic_quantize_lstm", "recurrent"]

Places = NDArray[np.int64]


def recurrent(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """LSTM, GRU, RNN: W ``[directions, gates * hidden, inputs]``, R likewise.

    Raises:
        NotPrunable: W or R is not made of stored elements, or a length of sequences cannot be
            followed.
    """
    if not _weighs(node, builder):
        return None
    _, w, r, *_ = node.input
    weights = [_Weight.of(builder, name, {}, gates_last=False) for name in (w, r)]
    return _Recurrence(node, builder, *weights).layers()


def dynamic_quantize_lstm(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """com.microsoft DynamicQuantizeLSTM: integer W ``[directions, inputs, 4 * hidden]``.

    Raises:
        NotPrunable: W or R is not made of stored elements, or a length of sequences cannot be
            followed.
    """
    if not _weighs(node, builder):
        return None
    weights = []
    for name, at in ((node.input[1], 8), (node.input[2], 10)):
        how = levels_of(builder, node.input[at], node.input[at + 1])
        # One per direction, or one per direction, gate and neuron.
        spread = {key: how[key].reshape(len(how[key]), 1, -1) for key in ("scale", "zero_point")}
        weights.append(_Weight.of(builder, name, spread, gates_last=True))
    return _Recurrence(node, builder, *weights).layers()


def _weighs(node: NodeProto, builder: Builder) -> bool:
    """Whether W and R are constants."""
    constant = [name for name in node.input[1:3] if builder.is_constant(name)]
    if len(constant) == 1:
        raise NotPrunable("one of its W and R is no constant", builder.value(constant[0]).size)
    return len(constant) == 2


@dataclass(frozen=True)
class _Weight:
    """W or R.

    Attributes:
        operand: its name.
        places: of its elements, ``[direction, input, gate and neuron]``.
        levels: how integers stand for its values.
    """

    operand: str
    places: Places
    levels: Mapping[str, Any]

    @classmethod
    def of(
        cls, builder: Builder, name: str, levels: Mapping[str, Any], *, gates_last: bool
    ) -> _Weight:
        values = builder.value(name)
        places = np.arange(values.size).reshape(values.shape)
        return cls(name, places if gates_last else places.swapaxes(1, 2), levels)


class _Recurrence:
    """The layers of one node."""

    def __init__(self, node: NodeProto, builder: Builder, w: _Weight, r: _Weight) -> None:
        names = [*node.input, *[""] * 6]
        self._node, self._builder, self._w, self._r = node, builder, w, r
        self._bias, self._initial = names[3], names[5]
        self._found = attributes(node)
        self._sketch = sketch = Sketch(builder)
        self._hidden = r.places.shape[1]
        self._batch_first = bool(self._found.get("layout", 0))
        if names[4] and builder.opset < 9:
            size = w.places.size + r.places.size
            reason = f"lengths of sequences cannot be followed in opset {builder.opset}"
            raise NotPrunable(reason, size)
        x = names[0] if self._batch_first else sketch.add("Transpose", names[0], perm=[1, 0, 2])
        self._steps = Steps(sketch, names[4], x)
        self._inputs = self._steps.data(x, w.places.shape[1])

    def layers(self) -> list[NodeProto]:
        """The nodes that stand in the node's place."""
        direction = self._found.get("direction") or "forward"
        both = direction == "bidirectional"
        states = self._states()
        for place, name in enumerate(("forward", "reverse") if both else (direction,)):
            suffix = f" {name}" if both else ""
            h = self._before(states, place, reverse=name == "reverse")
            gates = slice(0, self._w.places.shape[2])
            wx = self._layer(self._w, self._inputs, place, gates, f"W{suffix}")
            linear = bool(self._found.get("linear_before_reset", 0))
            if self._node.op_type == "GRU" and not linear:
                self._gru(wx, h, place, suffix)
                continue
            rh = self._layer(self._r, h, place, gates, f"R{suffix}")
            if not linear:  # else the reset gate comes between
                self._sketch.add("Add", wx, rh)
        return [*self._sketch.nodes, self._original()]

    def _original(self) -> NodeProto:
        """The node itself, with its states among its outputs.

        Onnxruntime merges it with its copy where both run, and fails if it lacks them.
        """
        node = copied(self._node)
        if not node.output[0]:
            node.output[0] = self._builder.fresh(f"{self._builder.label.name}/states")
        return node

    def _states(self) -> str:
        """Hidden states after each step, ``[batch, steps, directions, hidden]``, from a copy."""
        tap = copied(self._node)
        tap.name = ""
        del tap.output[:]
        tap.output.append(self._builder.fresh(f"{self._builder.label.name}/states"))
        self._sketch.nodes.append(tap)
        if self._batch_first:
            return str(tap.output[0])
        return self._sketch.add("Transpose", tap.output[0], perm=[2, 0, 1, 3])

    def _before(self, states: str, place: int, *, reverse: bool) -> str:
        """What R multiplies in one direction."""
        sketch = self._sketch
        own = sketch.add("Gather", states, sketch.constant(place), axis=2)
        initial = ""
        if self._initial:
            axis = 1 if self._batch_first else 0
            initial = sketch.add("Gather", self._initial, sketch.constant(place), axis=axis)
            initial = sketch.reshape(initial, [0, 1, -1])
        h = self._steps.before(own, initial, reverse=reverse)
        return self._steps.data(h, self._hidden)

    def _layer(self, weight: _Weight, x: str, place: int, gates: slice, part: str) -> str:
        """A product with some rows of W or R, and their half of B added."""
        places = weight.places[place][:, gates]
        stored = self._builder.weight(weight.operand, places, **weight.levels)
        y = self._sketch.add("MatMul", x, stored, part=part)
        count = weight.places.shape[2]
        first = (2 * place + int(weight is self._r)) * count
        return self._sketch.bias(y, self._bias, np.arange(first, first + count)[gates])

    def _gru(self, wx: str, h: str, place: int, suffix: str) -> None:
        """R for the update and reset gates, and R for the candidate state, which sees r * h."""
        sketch, size = self._sketch, self._hidden
        z_and_r, candidate = slice(0, 2 * size), slice(2 * size, 3 * size)
        rh = self._layer(self._r, h, place, z_and_r, f"R zr{suffix}")
        gates = sketch.add("Add", self._part(wx, z_and_r), rh)
        reset = self._activated(self._part(gates, slice(size, 2 * size)), place)
        rest = sketch.add("Mul", reset, h)
        rh = self._layer(self._r, rest, place, candidate, f"R h{suffix}")
        sketch.add("Add", self._part(wx, candidate), rh)

    def _part(self, x: str, gates: slice) -> str:
        return self._sketch.slice(x, self._steps.axes - 1, gates.start, gates.stop)

    def _activated(self, x: str, place: int) -> str:
        """Apply the function of the gates."""
        given_names = [_text(name) for name in self._found.get("activations", [])]
        names = given_names or ["Sigmoid", "Tanh"] * 2
        for name in names:
            refuse_unknown(name, self._w.places.size + self._r.places.size)
        before = [parameters_of(name) for name in names[: 2 * place]]
        name = names[2 * place]
        parameters = []
        for key, least in (("activation_alpha", 1), ("activation_beta", 2)):
            given = self._found.get(key, [])
            at = sum(count >= least for count in before)
            if parameters_of(name) >= least and at < len(given):
                parameters.append(given[at])
        clip = self._found.get("clip")
        if clip:
            x = activate(self._sketch, "Clip", x, [-clip, clip])
        return activate(self._sketch, name, x, parameters)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
