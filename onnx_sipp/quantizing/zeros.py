"""How many zeros of a model are zero points after it was quantised."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from onnx_sipp.report.quantizing import QuantizedWeight

__all__ = ["count_zeros", "name_in_file", "origin_of"]

# Names that onnxruntime's quantiser gives: of the levels and of their zero point, behind the name
# of the weight, or that of the weight of a Gemm that it made a MatMul of.
_LEVELS, _ZERO_POINT = "_quantized", "_zero_point"
_TURNED = re.compile(r"_Transposed(_\d+)?$")
# What onnxruntime's optimiser puts before the name of a weight that it folds a factor into.
_FOLDED = re.compile(r"^(Conv(Bn|Mul)Fusion_W_)+")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def count_zeros(before: ModelProto, after: ModelProto) -> tuple[list[QuantizedWeight], list[str]]:
    """Compare weights before and after.

    Args:
        before: what was quantised.
        after: what the quantiser made of it, with the names that it gave.

    Returns:
        The weights that are int8 now, in the order of the initializers before; names of constants
        of two or more axes that stayed floating point.
    """
    weights, left = [], []
    known = {tensor.name for tensor in before.graph.initializer}
    stored = {tensor.name: tensor for tensor in after.graph.initializer}
    made = {origin_of(name, known): name for name in stored}
    for tensor in before.graph.initializer:
        if tensor.data_type not in _FLOATS or len(tensor.dims) < 2:
            continue
        if tensor.name in stored:
            left.append(name_in_file(tensor.name))
        name = made.get(tensor.name)
        if name is None:
            continue
        integers = numpy_helper.to_array(stored[name])
        point = numpy_helper.to_array(stored[name.removesuffix(_LEVELS) + _ZERO_POINT])
        values = numpy_helper.to_array(tensor)
        weights.append(
            QuantizedWeight(
                name_in_file(tensor.name),
                list(values.shape),
                values.size,
                int(np.count_nonzero(values == 0)),
                int(np.count_nonzero(integers == _common(point))),
                scales=point.size,
            )
        )
    return weights, left


def origin_of(name: str, known: Collection[str]) -> str:
    """The constant whose levels another one holds, "" if it holds those of none.

    Args:
        name: of a constant of a quantised model.
        known: names of the constants before.
    """
    if not name.endswith(_LEVELS):
        return ""
    stem = name.removesuffix(_LEVELS)
    return next((stem for stem in (stem, _TURNED.sub("", stem)) if stem in known), "")


def name_in_file(name: str) -> str:
    """What the weight was called before anything was folded into it."""
    return _FOLDED.sub("", name)


def _common(point: NDArray[Any]) -> Any:
    """The zero point of int8 weights, which is 0 for all of them: they are symmetric."""
    first = point.reshape(-1)[0]
    assert (point == first).all()
    return first
