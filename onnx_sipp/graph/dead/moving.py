"""Rule for operators that only move elements about, or take the mean of equal ones.

There is one rule for all of them: the node is tried on an input whose elements are numbered. The
numbers that come out say which element each one came from. Open axes get a trial length; what
would depend on it differs between two trials, and then nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_sipp.graph.dead.fields import Field, Mask, Step, merged
from onnx_sipp.graph.dead.scope import TRIALS, Scope

__all__ = ["MOVING", "measuring", "moving"]

MOVING = (
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "ReduceMax", "ReduceMean", "ReduceMin",
    "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
# Nodes on more elements than this are not tried.
_LARGE = 1 << 24

Places = NDArray[np.int64]


def moving(node: NodeProto, scope: Scope) -> Step | None:
    """Find out where the elements of the outputs come from."""
    data = list(node.input) if node.op_type == "Concat" else [node.input[0]]
    fields = [scope.value(name) for name in data]
    found = [values for values in fields if values is not None]
    if len(found) != len(data):
        return None
    first, second = (_places(node, scope, data, found, trial) for trial in TRIALS)
    if first is None or second is None or len(first) != len(second):
        return None
    if not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True)):
        return None
    pool = np.concatenate([values.ravel() for values in found])
    names = [name for name in node.output if name]
    origins = dict(zip(names, first, strict=True))

    def reads(live: Mapping[str, Mask]) -> dict[str, Mask]:
        used = np.zeros(pool.size, np.bool_)
        for name, places in origins.items():
            used[places[live[name]]] = True
        parts = np.split(used, np.cumsum([values.size for values in found])[:-1])
        result: dict[str, Mask] = {}
        for name, part, values in zip(data, parts, found, strict=True):
            mask = part.reshape(values.shape)
            result[name] = result[name] | mask if name in result else mask
        return result

    return Step({name: pool[places] for name, places in origins.items()}, reads)


def measuring(node: NodeProto, scope: Scope) -> Step | None:
    """Shape and Size read no element."""
    values = scope.value(node.input[0])
    if values is None:
        return None
    nothing = np.zeros(values.shape, np.bool_)
    return Step({}, lambda _: {node.input[0]: nothing})


def _places(
    node: NodeProto, scope: Scope, data: Sequence[str], fields: Sequence[Field], trial: int
) -> list[Places] | None:
    """Per output, which element of the joined facts stands where; None if that is not clear."""
    total = sum(values.size for values in fields)
    # Numbers so irregular that no mean or extreme of different ones passes for one of them twice.
    numbers = np.random.default_rng(trial).choice(1 << 40, total, replace=False)
    ends = np.cumsum([values.size for values in fields])[:-1]
    operands: list[NDArray[np.generic] | None] = []
    for name, values, part in zip(data, fields, np.split(numbers, ends), strict=True):
        shape = [size or trial for size in scope.shape(name) or ()]
        if len(shape) != values.ndim or prod(shape) > _LARGE:
            return None
        laid = part.reshape(values.shape).astype(np.float64)
        operands.append(np.ascontiguousarray(np.broadcast_to(laid, shape)))
    sides = [scope.known(name, trial) if name else None for name in node.input[len(data) :]]
    if any(name and s is None for name, s in zip(node.input[len(data) :], sides, strict=True)):
        return None
    made = scope.evaluate(node, [*operands, *sides])
    if made is None:
        return None
    order = np.argsort(numbers)
    found: list[Places] = []
    for values in map(merged, made):
        at = np.searchsorted(numbers[order], values)
        places = order[np.minimum(at, total - 1)]
        if values.size == 0 or not np.array_equal(numbers[places], values):
            return None
        found.append(places)
    return found
