"""How many zeros of a model are zero points after it was quantised."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from onnx_sipp.report.quantizing import QuantizedWeight

__all__ = ["count_zeros"]

# Names that onnxruntime's quantiser gives: of the levels, of their zero point, and of the weight
# of a Gemm that it makes a MatMul of.
LEVELS, ZERO_POINT, TURNED = "_quantized", "_zero_point", "_transposed"
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def count_zeros(
    before: ModelProto, after: ModelProto
) -> tuple[list[QuantizedWeight], list[str]]:
    """Compare weights before and after.

    Args:
        before: what was quantised.
        after: what the quantiser made of it, with the names that it gave.

    Returns:
        The weights that are int8 now, in the order of the initializers before; names of constants
        of two or more axes that stayed floating point.
    """
    levels = {tensor.name: tensor for tensor in after.graph.initializer}
    weights, left = [], []
    for tensor in before.graph.initializer:
        if tensor.data_type not in _FLOATS or len(tensor.dims) < 2:
            continue
        stem = next(
            (s for s in (tensor.name, tensor.name + TURNED) if s + LEVELS in levels), None
        )
        if stem is None:
            if tensor.name in levels:
                left.append(tensor.name)
            continue
        integers = numpy_helper.to_array(levels[stem + LEVELS])
        point = numpy_helper.to_array(levels[stem + ZERO_POINT])
        values = numpy_helper.to_array(tensor)
        weights.append(
            QuantizedWeight(
                tensor.name,
                list(values.shape),
                values.size,
                int(np.count_nonzero(values == 0)),
                int(np.count_nonzero(integers == _common(point))),
                scales=point.size,
            )
        )
    return weights, left


def _common(point: NDArray[Any]) -> Any:
    """The zero point of int8 weights, which is 0 for all of them: they are symmetric."""
    first = point.reshape(-1)[0]
    assert (point == first).all()
    return first
