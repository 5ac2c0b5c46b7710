"""How a layer's activation becomes the input vectors that its weight matrix multiplies.

Every layer is seen as ``z = W a``: a weight matrix ``W[group, out, fan_in]`` and a set of input
vectors ``a`` ("patches"). For Gemm and MatMul a patch is a row of the activation, for Conv it is
one column of im2col. Patches are laid out feature-major, ``[group, fan_in, patch]``: im2col then
copies whole image rows, and every statistic is a plain matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Float32",
    "MatMulUnfolding",
    "Patches",
    "Unfolding",
    "pieces",
    "without_padding",
]

Float32 = NDArray[np.float32]

# Patches of this size stay in a shared cache while the statistics pass over them.
PIECE_BYTES = 8 << 20


@dataclass(frozen=True)
class Patches:
    """Input vectors of one layer for some samples.

    Attributes:
        columns: float32 ``[group, fan_in, samples * patches]``, sample by sample.
        samples: number of samples that the columns belong to.
        complete: False if more patches of the same (then single) sample follow.
    """

    columns: Float32
    samples: int
    complete: bool = True

    @property
    def per_sample(self) -> int:
        """Patches of each sample in this piece."""
        return int(self.columns.shape[2]) // self.samples


class Unfolding(Protocol):
    """Turns activations ``[samples, *shape of the tensor in one feed]`` into patches."""

    def unfold(self, activation: NDArray[Any]) -> Float32:
        """Return all patches as float32 ``[group, fan_in, samples * patches]``."""
        ...

    def patch_bytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of the patches of one sample whose tensor has this shape."""
        ...

    def cut(self, activation: NDArray[Any], parts: int) -> Iterator[Float32]:
        """Unfold one sample (leading axis 1) in about so many parts."""
        ...

    def pairs(
        self, activation: NDArray[Any], outputs: Sequence[NDArray[Any]], limit: int = PIECE_BYTES
    ) -> Iterator[tuple[Float32, list[Float32]]]:
        """Unfold an activation as the nodes saw it, with the outputs that they made of it.

        Yields:
            Patches ``[group, fan_in, n]``, and per output ``[group, out, n]``, column by column.
        """
        ...


def pieces(
    unfolding: Unfolding, activation: NDArray[Any], limit: int = PIECE_BYTES
) -> Iterator[Patches]:
    """Unfold piece by piece, so that memory is bounded whatever the size of the activation.

    Args:
        unfolding: of the layer.
        activation: ``[samples, *shape of the tensor in one feed]``.
        limit: bytes a piece may take; a single patch may take more.

    Yields:
        Whole samples, or successive parts of one sample that alone exceeds the limit.
    """
    per_sample = max(1, unfolding.patch_bytes(activation.shape[1:]))
    step = max(1, limit // per_sample)
    for start in range(0, len(activation), step):
        block = activation[start : start + step]
        if per_sample <= limit:
            yield Patches(unfolding.unfold(block), len(block))
            continue
        parts = unfolding.cut(block, -(-per_sample // limit))
        columns = next(parts)
        for following in parts:
            yield Patches(columns, 1, complete=False)
            columns = following
        yield Patches(columns, 1)


def without_padding(value: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Leave out the rows of a tensor that a mask says are padding.

    Args:
        value: ``[*shape of the mask, ...]``, or with those axes joined into one; any other tensor
            is returned as it is.
        mask: True where the data is real.
    """
    if value.ndim > mask.ndim and value.shape[: mask.ndim] == mask.shape:
        return value[mask]
    if value.ndim > 1 and value.shape[0] == mask.size:
        return value[mask.ravel()]
    return value


@dataclass(frozen=True)
class MatMulUnfolding:
    """Rows (or columns) of the last two axes are the patches.

    Attributes:
        groups: the batch axes of the constant operand, ``()`` if it is a plain matrix. Each of
            its matrices is a group, fed by the matching slice of the activation.
        columns: patches are columns: the constant stands on the left, or Gemm has transA.
        neurons_first: neurons are rows of the output, not columns: the constant stands on the left.

    The tensor of one feed may be one-dimensional: then it is a single patch (numpy.matmul).
    """

    groups: tuple[int, ...] = ()
    columns: bool = False
    neurons_first: bool = False

    def unfold(self, activation: NDArray[Any]) -> Float32:
        """See `Unfolding.unfold`."""
        x = activation.astype(np.float32, copy=False)
        if x.ndim == 2:
            x = x[:, None, :]
        elif self.columns:
            x = x.swapaxes(-1, -2)
        if not self.groups:
            return x.reshape(1, -1, x.shape[-1]).transpose(0, 2, 1)
        samples, *batch, rows, fan_in = x.shape
        batch = [1] * (len(self.groups) - len(batch)) + batch
        lead = batch[: len(batch) - len(self.groups)]
        # A constant axis of 1 is broadcast over the activation's: those are patches, not groups.
        full = np.broadcast_shapes(tuple(batch), self.groups)
        x = np.broadcast_to(
            x.reshape(samples, *batch, rows, fan_in), (samples, *full, rows, fan_in)
        )
        axes = range(1 + len(lead), 1 + len(full))
        group = [axis for axis, size in zip(axes, self.groups, strict=True) if size > 1]
        rest = [axis for axis in range(x.ndim - 1) if axis not in group]
        return x.transpose(*group, x.ndim - 1, *rest).reshape(prod(self.groups), fan_in, -1)

    def patch_bytes(self, shape: tuple[int, ...]) -> int:
        """See `Unfolding.patch_bytes`."""
        if not self.groups or len(shape) < 2:
            return 4 * prod(shape) * prod(self.groups)
        return 4 * prod(np.broadcast_shapes(shape[:-2], self.groups)) * prod(shape[-2:])

    def cut(self, activation: NDArray[Any], parts: int) -> Iterator[Float32]:
        """See `Unfolding.cut`."""
        if activation.ndim == 2:
            yield self.unfold(activation)
            return
        axis = -1 if self.columns else -2
        for part in np.array_split(activation, min(parts, activation.shape[axis]), axis=axis):
            yield self.unfold(part)

    def pairs(
        self, activation: NDArray[Any], outputs: Sequence[NDArray[Any]], limit: int = PIECE_BYTES
    ) -> Iterator[tuple[Float32, list[Float32]]]:
        """See `Unfolding.pairs`; for plain matrices only, ``groups == ()``."""
        rows = [_rows(activation, columns=self.columns)]
        if not len(rows[0]):  # no sample reaches the layer
            return
        for value in outputs:
            found = _rows(value, columns=self.neurons_first)
            # The neurons may have been parted into several axes.
            rows.append(found.reshape(len(rows[0]), -1))
        parts = max(1, -(-rows[0].nbytes // limit))
        for x, *targets in zip(*(np.array_split(value, parts) for value in rows), strict=True):
            yield x.T[None], [target.T[None] for target in targets]


def _rows(value: NDArray[Any], *, columns: bool) -> Float32:
    """The last axis (or the last but one) as columns of a matrix with all others as its rows."""
    x = value.astype(np.float32, copy=False)
    if columns and x.ndim > 1:
        x = x.swapaxes(-1, -2)
    return x.reshape(-1, x.shape[-1])
