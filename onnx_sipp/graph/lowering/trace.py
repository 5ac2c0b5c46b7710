"""Which stored elements a constant consists of, found by evaluating its route on their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, OperatorSetIdProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnx_sipp.graph.lowering.grid import Grid
from onnx_sipp.graph.node import NotPrunable, attributes
from onnx_sipp.graph.tensors import is_float

__all__ = ["Traced", "Tracer", "spread"]

Array = NDArray[Any]

# Operators that only re-arrange, with the inputs whose elements they hand on.
_REARRANGING: Mapping[str, tuple[int, ...] | None] = {
    "Compress": (0,),
    "Concat": None,  # all inputs
    "DepthToSpace": (0,),
    "Dropout": (0,),
    "Expand": (0,),
    "Flatten": (0,),
    "Gather": (0,),
    "GatherElements": (0,),
    "GatherND": (0,),
    "Identity": (0,),
    "Pad": (0, 2),
    "Reshape": (0,),
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
    "Slice": (0,),
    "SpaceToDepth": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "Tile": (0,),
    "Transpose": (0,),
    "Trilu": (0,),
    "Unsqueeze": (0,),
    "Where": (1, 2),
}


@dataclass(frozen=True)
class Traced:
    """A constant, element by element.

    Attributes:
        ids: number of the stored element that each of its elements is, 0 where it is none.
        dtype: of its values.
        grid: how they are stored if not as they are.
        levels: the values are the integers of the grid, not yet real ones.
    """

    ids: NDArray[np.int64]
    dtype: np.dtype[Any]
    grid: Grid | None = None
    levels: bool = False


class Tracer:
    """Traces and evaluates the constants of a graph.

    Args:
        opsets: that the graph's operators are from.
        stored: makes a `Traced` of the name of a stored constant.
        read: gives the elements of a stored constant.
    """

    def __init__(
        self,
        opsets: list[OperatorSetIdProto],
        stored: Callable[[str], Traced | None],
        read: Callable[[str], Array],
    ) -> None:
        self._opsets, self._stored, self._read = opsets, stored, read
        self._producer: dict[str, NodeProto] = {}
        self._values: dict[str, Array] = {}

    def add(self, node: NodeProto) -> None:
        """Make the outputs of a node known."""
        self._producer.update((name, node) for name in node.output if name)

    def trace(self, name: str) -> Traced:
        """Follow a constant back to the stored ones.

        Raises:
            NotPrunable: an operator on the way calculates.
        """
        result = self._known(name, self._traced(name))
        if isinstance(result, NotPrunable):
            raise result
        return result

    def elements(self, name: str) -> NDArray[np.int64]:
        """The stored elements that a constant depends on; in its shape, if it is not calculated."""
        known = self._traced(name)
        parts: dict[str, NDArray[np.int64]] = {}
        pending, seen = [name], {name}
        while pending:
            current = pending.pop()
            found = self._known(current, known)
            if isinstance(found, Traced):
                parts[current] = found.ids
            elif current in self._producer and not _is_shape(self._producer[current]):
                inputs = {n for n in self._producer[current].input if n} - seen
                seen |= inputs
                pending.extend(sorted(inputs))
        if list(parts) == [name]:
            return parts[name]
        return np.concatenate([np.zeros(0, np.int64), *(ids.ravel() for ids in parts.values())])

    def value(self, name: str) -> Array:
        """Evaluate a constant.

        Raises:
            NotPrunable: onnx's reference implementation cannot.
        """
        for node in self._upstream(name):
            if not all(output in self._values for output in node.output if output):
                inputs = [self._value(n) if n else None for n in node.input]
                self._values.update(zip(node.output, self._run(node, inputs), strict=False))
        return self._value(name)

    def sources(self, name: str) -> set[str]:
        """The stored constants whose elements a constant depends on; for a shape that is none."""
        names = {name}
        for node in reversed(self._upstream(name)):
            if names & set(node.output) and not _is_shape(node):
                names.update(n for n in node.input if n)
        return {n for n in names if n not in self._producer}

    def _traced(self, name: str) -> dict[str, Traced | NotPrunable]:
        """Everything that nodes compute on the way to a constant."""
        known: dict[str, Traced | NotPrunable] = {}
        for node in self._upstream(name):
            try:
                found = self._step(node, known)
            except NotPrunable as reason:
                found = [reason] * len(node.output)
            except (TypeError, ValueError, LookupError) as error:
                found = [NotPrunable(f"{node.op_type} is malformed: {error}")] * len(node.output)
            known.update(zip(node.output, found, strict=False))
        return known

    def _value(self, name: str) -> Array:
        return self._values[name] if name in self._values else self._read(name)

    def _upstream(self, name: str) -> list[NodeProto]:
        """All nodes that a constant is computed by, each after those that it needs."""
        order: list[NodeProto] = []
        seen: set[int] = set()
        pending = [(name, False)]
        while pending:
            current, ready = pending.pop()
            node = self._producer.get(current)
            if node is None or (id(node) in seen and not ready):
                continue
            if ready:
                order.append(node)
                continue
            seen.add(id(node))
            pending.append((current, True))
            pending.extend((n, False) for n in node.input if n)
        return order

    def _known(self, name: str, known: Mapping[str, Traced | NotPrunable]) -> Traced | NotPrunable:
        if name in known:
            return known[name]
        return self._stored(name) or NotPrunable("it holds numbers that are not stored")

    def _step(self, node: NodeProto, known: Mapping[str, Traced | NotPrunable]) -> list[Any]:
        def operand(place: int) -> Traced:
            found = self._known(node.input[place], known)
            if isinstance(found, NotPrunable):
                raise found
            return found

        if node.domain not in ("", "ai.onnx"):
            raise NotPrunable(f"{node.op_type} calculates")
        if node.op_type == "Cast":
            return [self._cast(node, operand(0))]
        if node.op_type == "DequantizeLinear":
            return [self._dequantized(node, operand(0))]
        if node.op_type == "QuantizeLinear":
            return [self._quantized(node, operand(0))]
        training = node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]
        if node.op_type not in _REARRANGING or (training and self.value(node.input[2])):
            raise NotPrunable(f"{node.op_type} calculates")
        places = _REARRANGING[node.op_type]
        data = [
            p for p in (range(len(node.input)) if places is None else places) if p < len(node.input)
        ]
        return self._rearranged(
            node, {place: operand(place) for place in data if node.input[place]}
        )

    def _rearranged(self, node: NodeProto, operands: Mapping[int, Traced]) -> list[Traced]:
        if not operands:
            raise NotPrunable(f"{node.op_type} is malformed: it has no input")
        first = next(iter(operands.values()))
        kinds = {
            (o.grid and (o.grid.dtype, o.grid.stored), o.levels, o.dtype) for o in operands.values()
        }
        if len(kinds) > 1:
            raise NotPrunable(f"{node.op_type} mixes constants that are stored in different ways")

        def run(arrays: Mapping[int, Array]) -> list[Array]:
            inputs = [
                arrays[place] if place in arrays else self.value(name) if name else None
                for place, name in enumerate(node.input)
            ]
            return self._run(node, inputs)

        ids = run({place: operand.ids for place, operand in operands.items()})
        if first.grid is None:
            return [Traced(part, first.dtype) for part in ids]
        grids = {place: operand.grid for place, operand in operands.items() if operand.grid}
        scales = run({place: grid.scale for place, grid in grids.items()})
        zeros = run({place: grid.zero_point for place, grid in grids.items()})
        return [
            Traced(
                part,
                first.dtype,
                Grid(scale, zero, first.grid.dtype, first.grid.stored),
                first.levels,
            )
            for part, scale, zero in zip(ids, scales, zeros, strict=True)
        ]

    def _cast(self, node: NodeProto, operand: Traced) -> Traced:
        to = attributes(node)["to"]
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(to))
        if not is_float(dtype) or not is_float(operand.dtype) or operand.levels:
            raise NotPrunable(f"Cast from {operand.dtype} to {dtype} rounds or reinterprets")
        return Traced(operand.ids, dtype, operand.grid)

    def _dequantized(self, node: NodeProto, operand: Traced) -> Traced:
        scale, zero = self._parameters(node, operand)
        if operand.grid is None:
            grid = Grid(scale, zero, operand.dtype, stored=True)
        else:
            grid = operand.grid
            same = np.array_equal(grid.scale, scale) and np.array_equal(grid.zero_point, zero)
            if not operand.levels or not same:
                raise NotPrunable("DequantizeLinear undoes another quantisation")
        to = attributes(node).get("output_dtype") or 0
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(to)) if to else scale.dtype
        return Traced(operand.ids, dtype, grid)

    def _quantized(self, node: NodeProto, operand: Traced) -> Traced:
        if operand.grid is not None:
            raise NotPrunable("it is quantised twice")
        scale, zero = self._parameters(node, operand)
        if len(node.input) > 2 and node.input[2]:
            dtype = self.value(node.input[2]).dtype
        else:
            to = attributes(node).get("output_dtype") or TensorProto.UINT8
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(to))
        return Traced(operand.ids, dtype, Grid(scale, zero, dtype, stored=False), levels=True)

    def _parameters(self, node: NodeProto, operand: Traced) -> tuple[Array, NDArray[np.int32]]:
        """Scale and zero point of every element: per tensor, per axis, or per block."""
        found, shape = attributes(node), operand.ids.shape
        scale = self.value(node.input[1])
        zero = np.zeros(scale.shape, np.int32)
        if len(node.input) > 2 and node.input[2]:
            zero = self.value(node.input[2]).astype(np.int32)
        axis, block = int(found.get("axis", 1)), int(found.get("block_size", 0))
        return spread(scale, shape, axis, block), spread(zero, shape, axis, block)

    def _run(self, node: NodeProto, inputs: list[Array | None]) -> list[Array]:
        given = {n: v for n, v in zip(node.input, inputs, strict=True) if v is not None}
        outputs = [name for name in node.output if name]
        graph = onnx.GraphProto(name="constant", node=[node])
        graph.input.extend(onnx.ValueInfoProto(name=name) for name in given)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        model = helper.make_model(graph, opset_imports=self._opsets)
        try:
            results = ReferenceEvaluator(model).run(None, given)
        except Exception as error:  # whatever an operator of the reference raises
            raise NotPrunable(f"{node.op_type} cannot be evaluated: {error}") from error
        made = dict(zip(outputs, results, strict=True))
        return [made.get(name, np.zeros(0, np.int64)) for name in node.output]


def _is_shape(node: NodeProto) -> bool:
    """Whether a node looks at no element of what it reads."""
    return node.op_type in ("Shape", "Size") and node.domain in ("", "ai.onnx")


def spread(values: Array, shape: tuple[int, ...], axis: int, block: int = 0) -> Array:
    """Quantisation parameters for every element.

    Args:
        values: one, one per index of an axis, one per block along it, or as many axes as the
            elements have, some of them of size 1.
        shape: of the elements.
        axis: the values belong to, unless there is one for all.
        block: length of the blocks, 0 for none.

    Raises:
        NotPrunable: they do not fit.
    """
    try:
        if values.size == 1 and not block:
            return np.broadcast_to(values.reshape(()), shape)
        if values.ndim == len(shape) and not block:
            return np.broadcast_to(values, shape)
        if block:
            repeated = np.repeat(values, block, axis).take(range(shape[axis]), axis)
            return np.broadcast_to(repeated, shape)
        return np.broadcast_to(
            values.reshape([-1] + [1] * (len(shape) - 1 - axis % len(shape))), shape
        )
    except (ValueError, IndexError) as error:
        raise NotPrunable(f"its quantisation parameters do not fit its shape: {error}") from error
