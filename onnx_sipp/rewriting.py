"""New weights as a model stores them, and how they are written to it, block by block."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.tensors import is_external
from onnx_sipp.pruning.selection import kept_only
from onnx_sipp.weights import Block

__all__ = ["BlockWriter", "stored_values"]

Float = NDArray[np.floating]


class BlockWriter:
    """Replaces the blocks of constants in a model, those of one constant in their order.

    A constant in the message is replaced as a whole once all of its blocks are there: every write
    copies all of it.

    Args:
        model: that is changed.
    """

    def __init__(self, model: Lowered) -> None:
        self._model = model
        self._waiting: list[NDArray[Any]] = []

    def write(self, block: Block, values: NDArray[Any]) -> None:
        """Replace one block.

        Args:
            block: of a constant.
            values: as the model stores them.
        """
        name, axis = block.weight.name, block.axis
        if axis is not None and is_external(self._model.stored[name]):
            self._model.replace_slab(name, axis, block.rows.start, values)
            return
        due = block.weight.blocks[len(self._waiting)]
        assert block.rows == due.rows, "blocks come in their order"
        self._waiting.append(values)
        if len(self._waiting) == len(block.weight.blocks):
            whole = values if axis is None else np.concatenate(self._waiting, axis)
            self._waiting.clear()
            self._model.replace(name, whole)


def stored_values(
    block: Block, old: NDArray[Any], new: Float, kept: NDArray[np.bool_]
) -> NDArray[Any]:
    """New elements of a stored constant, with a zero exactly where a weight was dropped.

    Args:
        block: that they belong to.
        old: the elements before.
        new: ``[group, out, fan_in]``.
        kept: same shape.
    """
    values: NDArray[Any]
    if new.dtype == old.dtype:
        values = kept_only(new, kept)
    else:
        # A reweighted weight may not fit a narrow type, nor a weight's own type a wide one's limit.
        largest = min(float(ml_dtypes.finfo(kind).max) for kind in (old.dtype, new.dtype))
        values = kept_only(np.clip(new, -largest, largest), kept).astype(old.dtype)
    # A kept weight that underflows would be one zero too many.
    as_before = kept & (values == 0)
    if old.dtype.itemsize > 4:
        # Weights left as they were keep every bit, also those that the float32 matrix lacks.
        with np.errstate(over="ignore"):
            same = new == block.view.to_matrix(old).astype(np.float32)
        as_before |= kept & same
    if as_before.any():
        values[as_before] = block.view.to_matrix(old)[as_before]
    return block.view.to_stored(values)
