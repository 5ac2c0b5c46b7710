"""Ordinary operators that rebuild a tensor from its codes; runtimes fold them when they load.

Only operators are used that onnxruntime and OpenVINO evaluate on constants. NonZero, ScatterND and
Compress would do it in fewer nodes, but they are not folded, and would run with every inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_sipp.packing.codes import NIBBLE_SKIP, Codes, Gaps, Mask, Nibbles
from onnx_sipp.packing.values import Stored

__all__ = ["OLDEST_OPSET", "Chain", "Shared", "build"]

# The first with CumSum and ScatterElements.
OLDEST_OPSET = 11


@dataclass
class Shared:
    """Small constants that all chains of a model use.

    Attributes:
        prefix: of all new names.
        tensors: by name.
    """

    prefix: str
    tensors: dict[str, TensorProto] = field(default_factory=dict)

    def constant(self, short: str, value: NDArray[Any]) -> str:
        """Name of a constant, which is made when it is first asked for."""
        name = f"{self.prefix}{short}"
        if name not in self.tensors:
            self.tensors[name] = numpy_helper.from_array(value, name)
        return name


@dataclass(frozen=True)
class Chain:
    """What makes a tensor.

    Attributes:
        nodes: in topological order; the last one makes the tensor.
        arrays: constants of this chain alone, by name.
        shared: names of the shared constants that it reads.
    """

    nodes: Sequence[NodeProto]
    arrays: dict[str, NDArray[Any]]
    shared: frozenset[str]


class _Builder:
    def __init__(self, shared: Shared, number: int) -> None:
        self._shared, self._stem = shared, f"{shared.prefix}{number}."
        self.nodes: list[NodeProto] = []
        self.arrays: dict[str, NDArray[Any]] = {}
        self.used: set[str] = set()

    def own(self, short: str, value: NDArray[Any]) -> str:
        name = f"{self._stem}{short}"
        self.arrays[name] = value
        return name

    def common(self, short: str, value: NDArray[Any]) -> str:
        name = self._shared.constant(short, value)
        self.used.add(name)
        return name

    def add(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{self._stem}{_letters(len(self.nodes))}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
        return name

    def axis(self) -> str:
        return self.common("axis", np.array(0, np.int64))

    def flat(self, data: str, count: int, of: int) -> str:
        """The elements of a matrix in a row, without some to spare at the end."""
        flat = self.add("Reshape", [data, self.common("flat", np.array([-1], np.int64))])
        if count == of:
            return flat
        start = self.common("start", np.array([0], np.int64))
        return self.add("Slice", [flat, start, self.own("E", np.array([count], np.int64))])

    def digits(self, data: NDArray[np.uint8], base: int, count: int) -> str:
        """The digits of bytes to a base that is a power of two, the lowest first, as int32.

        OpenVINO gives wrong results for BitShift on bytes, so they are divided.
        """
        each = {2: 8, 16: 2}[base]
        column = self.add("Cast", [self.own("C", data[:, np.newaxis])], to=TensorProto.INT32)
        powers = self.common(f"p{base}", base ** np.arange(each, dtype=np.int32)[np.newaxis])
        high = self.add("Div", [column, powers])
        base_name = self.common(f"b{base}", np.array([base], np.int32))
        return self.flat(self.add("Mod", [high, base_name]), count, each * data.size)

    def picked(self, flags: str, values: NDArray[Any]) -> str:
        """The next value where a flag is 1, the first one where it is 0."""
        number = self.add("Mul", [flags, self.add("CumSum", [flags, self.axis()])])
        return self.add("Gather", [self.own("V", values), number])

    def filled(self, usual: NDArray[Any], size: int) -> str:
        """Many of the usual element."""
        fill = self.common(f"z{usual.dtype.num}.{usual.tobytes().hex()}", usual)
        return self.add("Expand", [fill, self.own("N", np.array([size], np.int64))])

    def scattered(self, places: str, values: str, usual: NDArray[Any], size: int) -> str:
        """Values at their places among many of the usual element."""
        return self.add("ScatterElements", [self.filled(usual, size), places, values])


def build(codes: Codes, stored: Stored, name: str, shared: Shared, number: int) -> Chain:
    """Make the operators that rebuild a tensor.

    Args:
        codes: of its elements as they are stored.
        stored: their type and shape, and what turns them into the tensor.
        name: of the tensor.
        shared: constants of all chains; what is missing is added.
        number: of the chain in the model.
    """
    builder = _Builder(shared, number)
    if isinstance(codes, Mask):
        flat = _from_mask(builder, codes)
    elif isinstance(codes, Nibbles):
        flat = _from_nibbles(builder, codes, stored)
    else:
        flat = _from_gaps(builder, codes, stored)
    shape = np.array(stored.shape, np.int64)
    tensor = builder.add("Reshape", [flat, builder.own("S", shape)])
    if stored.casts:
        tensor = builder.add("Cast", [tensor], to=stored.computed_type)
    if stored.scale is not None:
        tensor = builder.add("Mul", [tensor, builder.own("M", stored.scale)])
        if stored.computed_type != stored.data_type:
            builder.add("Cast", [tensor], to=stored.data_type)
    builder.nodes[-1].output[0] = name
    return Chain(builder.nodes, builder.arrays, frozenset(builder.used))


def _from_mask(builder: _Builder, codes: Mask) -> str:
    return builder.picked(builder.digits(codes.data, 2, codes.count), codes.values)


def _from_nibbles(builder: _Builder, codes: Nibbles, stored: Stored) -> str:
    nibbles = builder.digits(codes.data, 16, codes.count)
    skip = builder.common("skip", np.array([NIBBLE_SKIP], np.int32))
    flags = builder.add("Cast", [builder.add("Less", [nibbles, skip])], to=TensorProto.INT32)
    values = builder.picked(flags, codes.values)
    steps = builder.add("Add", [nibbles, flags])  # an element takes a place, a skip does not
    ends = builder.add("CumSum", [steps, builder.axis()])
    places = builder.add("Sub", [ends, builder.common("one", np.array([1], np.int32))])
    return builder.scattered(places, values, codes.values[:1], stored.size)


def _from_gaps(builder: _Builder, codes: Gaps, stored: Stored) -> str:
    if not codes.data.size:
        return builder.filled(stored.usual, stored.size)
    steps = builder.add("Cast", [builder.own("C", codes.data)], to=TensorProto.INT32)
    places = builder.add("CumSum", [steps, builder.axis()])
    return builder.scattered(places, builder.own("V", codes.values), stored.usual, stored.size)


def _letters(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"a{number}"
