"""Which stored elements a constant consists of, found by evaluating its route on their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from onnx_sipp.graph.lowering.evaluation import Evaluator
from onnx_sipp.graph.lowering.grid import Grid, spread
from onnx_sipp.graph.node import NotPrunable, attributes
from onnx_sipp.graph.tensors import is_float

__all__ = ["Traced", "Tracer"]

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
    """Traces the constants of a graph.

    Args:
        evaluator: of the constants.
        stored: makes a `Traced` of the name of a stored constant.

    Attributes:
        evaluator: of the constants.
    """

    def __init__(self, evaluator: Evaluator, stored: Callable[[str], Traced | None]) -> None:
        self.evaluator, self._stored = evaluator, stored

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
            found, node = self._known(current, known), self.evaluator.producers.get(current)
            if isinstance(found, Traced):
                parts[current] = found.ids
            elif node is not None and not _is_shape(node):
                inputs = {n for n in node.input if n} - seen
                seen |= inputs
                pending.extend(sorted(inputs))
        if list(parts) == [name]:
            return parts[name]
        return np.concatenate([np.zeros(0, np.int64), *(ids.ravel() for ids in parts.values())])

    def sources(self, name: str) -> set[str]:
        """The stored constants whose elements a constant depends on; for a shape that is none."""
        names = {name}
        for node in reversed(self.evaluator.upstream(name)):
            if names & set(node.output) and not _is_shape(node):
                names.update(n for n in node.input if n)
        return {n for n in names if n not in self.evaluator.producers}

    def _traced(self, name: str) -> dict[str, Traced | NotPrunable]:
        """Everything that nodes compute on the way to a constant."""
        known: dict[str, Traced | NotPrunable] = {}
        for node in self.evaluator.upstream(name):
            try:
                found = self._step(node, known)
            except NotPrunable as reason:
                found = [reason] * len(node.output)
            except (TypeError, ValueError, LookupError) as error:
                found = [NotPrunable(f"{node.op_type} is malformed: {error}")] * len(node.output)
            known.update(zip(node.output, found, strict=False))
        return known

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
        if node.op_type not in _REARRANGING or (training and self.evaluator.value(node.input[2])):
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
                arrays[place] if place in arrays else self.evaluator.value(name) if name else None
                for place, name in enumerate(node.input)
            ]
            return self.evaluator.run(node, inputs)

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
            dtype = self.evaluator.value(node.input[2]).dtype
        else:
            to = attributes(node).get("output_dtype") or TensorProto.UINT8
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(to))
        return Traced(operand.ids, dtype, Grid(scale, zero, dtype, stored=False), levels=True)

    def _parameters(self, node: NodeProto, operand: Traced) -> tuple[Array, NDArray[np.int32]]:
        """Scale and zero point of every element: per tensor, per axis, or per block."""
        found, shape = attributes(node), operand.ids.shape
        scale = self.evaluator.value(node.input[1])
        zero = np.zeros(scale.shape, np.int32)
        if len(node.input) > 2 and node.input[2]:
            zero = self.evaluator.value(node.input[2]).astype(np.int32)
        axis, block = int(found.get("axis", 1)), int(found.get("block_size", 0))
        return spread(scale, shape, axis, block), spread(zero, shape, axis, block)


def _is_shape(node: NodeProto) -> bool:
    """Whether a node looks at no element of what it reads."""
    return node.op_type in ("Shape", "Size") and node.domain in ("", "ai.onnx")
