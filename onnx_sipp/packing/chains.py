"""Ordinary operators that rebuild a tensor from its codes; runtimes fold them when they load.

Only operators are used that onnxruntime and OpenVINO evaluate on constants. NonZero, ScatterND and
Compress would do it in fewer nodes, but they are not folded, and would run with every inference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_sipp.packing.codes import NIBBLE_SKIP, Codes, Gaps, Mask, Nibbles
from onnx_sipp.packing.values import Stored

__all__ = ["OLDEST_OPSET", "Chain", "Piece", "Shared", "build"]

# The first with CumSum and ScatterElements.
OLDEST_OPSET = 11


# From here on Split takes its sizes as an input.
_SPLIT_INPUT = 13


class Shared:
    """What all chains of a model use: small constants, and tables made of them.

    Args:
        prefix: of all new names.
        opset: of the model.
    """

    def __init__(self, prefix: str, opset: int) -> None:
        self.prefix, self.opset = prefix, opset
        self._tensors: dict[str, TensorProto] = {}
        self._nodes: dict[str, NodeProto] = {}
        self._shapes: dict[tuple[int, ...], int] = {}

    def constant(self, short: str, value: NDArray[Any]) -> str:
        """Name of a constant, which is made when it is first asked for."""
        name = f"{self.prefix}{short}"
        if name not in self._tensors:
            self._tensors[name] = numpy_helper.from_array(value, name)
        return name

    def shape(self, dims: Sequence[int]) -> str:
        """Name of a shape; they are numbered."""
        number = self._shapes.setdefault(tuple(dims), len(self._shapes))
        return self.constant(f"S{number}", np.array(dims, np.int64))

    def node(self, short: str, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Name of what a node makes, which is added when it is first asked for."""
        name = f"{self.prefix}{short}"
        if name not in self._nodes:
            self._nodes[name] = helper.make_node(op_type, inputs, [name], **attributes)
        return name

    def table(self, base: int) -> str:
        """Name of the digits of 0 to 255 to a base, the lowest first: int32 ``[256, digits]``.

        OpenVINO gives wrong results for BitShift on bytes; and a table is faster than to divide.
        """
        bytes_name = self.constant("B", np.arange(256, dtype=np.uint8)[:, np.newaxis])
        column = self.node("b", "Cast", [bytes_name], to=TensorProto.INT32)
        powers = base ** np.arange({2: 8, 16: 2}[base], dtype=np.int32)[np.newaxis]
        high = self.node(f"h{base}", "Div", [column, self.constant(f"P{base}", powers)])
        return self.node(
            f"t{base}", "Mod", [high, self.constant(f"M{base}", np.array([base], np.int32))]
        )

    def parts(self, names: Iterable[str]) -> tuple[list[NodeProto], list[TensorProto]]:
        """The nodes, in topological order, and constants that some names stand for."""
        needed, pending = set(), list(names)
        while pending:
            name = pending.pop()
            needed.add(name)
            if name in self._nodes:
                pending += self._nodes[name].input
        nodes = [node for name, node in self._nodes.items() if name in needed]
        return nodes, [tensor for name, tensor in self._tensors.items() if name in needed]


@dataclass(frozen=True)
class Piece:
    """One of the tensors that a chain makes."""

    name: str
    stored: Stored


@dataclass(frozen=True)
class Chain:
    """What makes one tensor, or several.

    Attributes:
        nodes: in topological order.
        arrays: constants of this chain alone, by name.
        shared: names of what it reads of `Shared`.
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

    def split(self, flat: str, sizes: Sequence[int]) -> list[str]:
        """Parts of so many elements, one after the other."""
        names = [f"{self._stem}{number}" for number in range(len(sizes))]
        if self._shared.opset < _SPLIT_INPUT:
            self.nodes.append(helper.make_node("Split", [flat], names, split=sizes))
        else:
            lengths = self.own("L", np.array(sizes, np.int64))
            self.nodes.append(helper.make_node("Split", [flat, lengths], names))
        return names

    def shape(self, dims: Sequence[int]) -> str:
        """A shape, which other tensors may have too."""
        name = self._shared.shape(dims)
        self.used.add(name)
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
        """The digits of bytes to a base that is a power of two, the lowest first, as int32."""
        table = self._shared.table(base)
        self.used.add(table)
        index = self.add("Cast", [self.own("C", data)], to=TensorProto.INT32)
        digits = self.add("Gather", [table, index])
        return self.flat(digits, count, {2: 8, 16: 2}[base] * data.size)

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


def build(codes: Codes, pieces: Sequence[Piece], shared: Shared, number: int) -> Chain:
    """Make the operators that rebuild some tensors.

    Args:
        codes: of their elements as they are stored, one tensor after the other.
        pieces: the tensors; all are stored in the same type, and leave out the same element.
        shared: constants of all chains; what is missing is added.
        number: of the chain in the model.
    """
    builder = _Builder(shared, number)
    size, usual = sum(piece.stored.size for piece in pieces), pieces[0].stored.usual
    if isinstance(codes, Mask):
        flat = _from_mask(builder, codes)
    elif isinstance(codes, Nibbles):
        flat = _from_nibbles(builder, codes, size)
    else:
        flat = _from_gaps(builder, codes, usual, size)
    parts = [flat] if len(pieces) == 1 else builder.split(flat, [p.stored.size for p in pieces])
    for piece, part in zip(pieces, parts, strict=True):
        _finish(builder, part, piece)
    return Chain(builder.nodes, builder.arrays, frozenset(builder.used))


def _finish(builder: _Builder, flat: str, piece: Piece) -> None:
    """Give a tensor its shape, type and name."""
    stored = piece.stored
    tensor = builder.add("Reshape", [flat, builder.shape(stored.shape)])
    if stored.casts:
        tensor = builder.add("Cast", [tensor], to=stored.computed_type)
    if stored.scale is not None:
        tensor = builder.add("Mul", [tensor, builder.own("M", stored.scale)])
        if stored.computed_type != stored.data_type:
            builder.add("Cast", [tensor], to=stored.data_type)
    builder.nodes[-1].output[0] = piece.name


def _from_mask(builder: _Builder, codes: Mask) -> str:
    return builder.picked(builder.digits(codes.data, 2, codes.count), codes.values)


def _from_nibbles(builder: _Builder, codes: Nibbles, size: int) -> str:
    nibbles = builder.digits(codes.data, 16, codes.count)
    skip = builder.common("skip", np.array([NIBBLE_SKIP], np.int32))
    flags = builder.add("Cast", [builder.add("Less", [nibbles, skip])], to=TensorProto.INT32)
    values = builder.picked(flags, codes.values)
    steps = builder.add("Add", [nibbles, flags])  # an element takes a place, a skip does not
    ends = builder.add("CumSum", [steps, builder.axis()])
    places = builder.add("Sub", [ends, builder.common("one", np.array([1], np.int32))])
    return builder.scattered(places, values, codes.values[:1], size)


def _from_gaps(builder: _Builder, codes: Gaps, usual: NDArray[Any], size: int) -> str:
    if not codes.data.size:
        return builder.filled(usual, size)
    steps = builder.add("Cast", [builder.own("C", codes.data)], to=TensorProto.INT32)
    places = builder.add("CumSum", [steps, builder.axis()])
    return builder.scattered(places, builder.own("V", codes.values), usual, size)


def _letters(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"a{number}"
