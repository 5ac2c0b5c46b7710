"""Facts about the elements of a tensor, and what a rule says of one node.

A fact is an array of the tensor's rank that has length 1 along the axes on which nothing differs:
``[1, C, 1, 1]`` after a convolution, ``[1, features]`` behind its flattening.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Field", "Mask", "Reads", "Step", "along", "merged", "project"]

# Values of elements that are the same whatever the model's inputs are; NaN where they are not.
Field = NDArray[np.float64]
# Which elements somebody reads.
Mask = NDArray[np.bool_]

# From which elements of the outputs are read to which of the inputs are, by name.
Reads = Callable[[Mapping[str, Mask]], dict[str, Mask]]


@dataclass(frozen=True)
class Step:
    """What is known of a node.

    Attributes:
        values: of its outputs, by name.
        reads: which elements of its inputs it reads; an input that is left out is read whole.
    """

    values: dict[str, Field]
    reads: Reads


def project(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """The elements of an operand that stand behind those of a result that it was broadcast to.

    Args:
        mask: over the result, of at least the operand's rank.
        shape: of the operand's facts.
    """
    extra = mask.ndim - len(shape)
    padded = (1,) * extra + shape
    axes = tuple(axis for axis, size in enumerate(padded) if size == 1)
    kept = np.any(mask, axis=axes, keepdims=True)
    return np.broadcast_to(kept, padded).reshape(shape)


def along(values: Field, axis: int) -> Field:
    """One value per place of an axis: the one that all elements there have, else NaN."""
    places = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    same = (places == places[:, :1]).all(axis=1)
    return np.where(same, places[:, 0], np.nan)


def merged(values: NDArray[Any], keep: tuple[int, ...] = ()) -> NDArray[Any]:
    """Shorten to length 1 every axis along which nothing differs.

    Args:
        values: facts; NaN is taken for equal to NaN.
        keep: axes to leave as they are.
    """
    for axis in range(values.ndim):
        first = values.take([0], axis) if values.shape[axis] > 1 and axis not in keep else None
        if first is not None and np.array_equal(
            values, np.broadcast_to(first, values.shape), equal_nan=values.dtype.kind == "f"
        ):
            values = first
    return values
