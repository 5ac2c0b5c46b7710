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
    "ConvUnfolding",
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
        turned: outputs are rows where patches are columns, or the other way round: Gemm transposed
            the activation.

    The tensor of one feed may be one-dimensional: then it is a single patch (numpy.matmul).
    """

    groups: tuple[int, ...] = ()
    columns: bool = False
    turned: bool = False

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
        across = self.columns != self.turned
        rows = [
            _rows(activation, columns=self.columns),
            *(_rows(output, columns=across) for output in outputs),
        ]
        parts = max(1, -(-rows[0].nbytes // limit))
        for x, *targets in zip(*(np.array_split(value, parts) for value in rows), strict=True):
            yield x.T[None], [target.T[None] for target in targets]


@dataclass(frozen=True)
class ConvUnfolding:
    """im2col of a convolution with any number of spatial axes.

    Attributes:
        kernel: kernel size per spatial axis.
        strides: stride per spatial axis.
        dilations: dilation per spatial axis.
        pads: zeros before and after per spatial axis, where ``auto_pad`` is ``NOTSET``.
        groups: number of groups.
        auto_pad: ONNX ``auto_pad``: ``NOTSET``, ``VALID``, ``SAME_UPPER`` or ``SAME_LOWER``.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    groups: int = 1
    auto_pad: str = "NOTSET"

    def padding(self, spatial: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Zeros before and after each spatial axis, for an input of this size."""
        if self.auto_pad == "NOTSET":
            return self.pads
        if self.auto_pad == "VALID":
            return ((0, 0),) * len(spatial)
        result = []
        for size, kernel, stride, dilation in zip(
            spatial, self.kernel, self.strides, self.dilations, strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
            less, more = total // 2, total - total // 2
            result.append((less, more) if self.auto_pad == "SAME_UPPER" else (more, less))
        return tuple(result)

    def output_size(self, padded: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial size of the output for an input of this size, padding included."""
        return tuple(
            (size - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, dilation in zip(
                padded, self.kernel, self.strides, self.dilations, strict=True
            )
        )

    def unfold(self, activation: NDArray[Any]) -> Float32:
        """See `Unfolding.unfold`; the tensor of one feed is ``[batch, channels, *spatial]``."""
        return self._columns(self._padded(activation))

    def patch_bytes(self, shape: tuple[int, ...]) -> int:
        """See `Unfolding.patch_bytes`."""
        batch, channels, *spatial = shape
        pads = self.padding(tuple(spatial))
        padded = tuple(size + sum(pad) for size, pad in zip(spatial, pads, strict=True))
        return 4 * batch * channels * prod(self.kernel) * prod(self.output_size(padded))

    def cut(self, activation: NDArray[Any], parts: int) -> Iterator[Float32]:
        """See `Unfolding.cut`."""
        padded = self._padded(activation)
        rows = self.output_size(padded.shape[2:])[0]
        reach = self.dilations[0] * (self.kernel[0] - 1) + 1
        for part in np.array_split(np.arange(rows), min(parts, rows)):
            first, last = int(part[0]), int(part[-1])
            start, stop = first * self.strides[0], last * self.strides[0] + reach
            yield self._columns(padded[:, :, start:stop])

    def pairs(
        self, activation: NDArray[Any], outputs: Sequence[NDArray[Any]], limit: int = PIECE_BYTES
    ) -> Iterator[tuple[Float32, list[Float32]]]:
        """See `Unfolding.pairs`."""
        per_image = max(1, self.patch_bytes((1, *activation.shape[1:])))
        step = max(1, limit // per_image)
        for start in range(0, len(activation), step):
            x = activation[start : start + step, None]
            targets = [self._by_group(output[start : start + step]) for output in outputs]
            parts = self.cut(x, -(-per_image // limit)) if per_image > limit else [self.unfold(x)]
            first = 0
            for columns in parts:
                last = first + columns.shape[2]
                yield columns, [target[:, :, first:last] for target in targets]
                first = last

    def _by_group(self, output: NDArray[Any]) -> Float32:
        """``[batch, out, *spatial]`` as ``[group, out / group, patches]``."""
        y = output.astype(np.float32, copy=False)
        y = y.reshape(len(y), self.groups, -1, prod(y.shape[2:])).transpose(1, 2, 0, 3)
        return y.reshape(*y.shape[:2], -1)

    def _padded(self, activation: NDArray[Any]) -> Float32:
        x = activation.reshape(-1, *activation.shape[2:]).astype(np.float32, copy=False)
        pads = self.padding(x.shape[2:])
        return np.pad(x, ((0, 0), (0, 0), *pads)) if any(map(any, pads)) else x

    def _columns(self, padded: Float32) -> Float32:
        batch, channels, *spatial = padded.shape
        out = self.output_size(tuple(spatial))
        of_batch, of_channel, *of_axis = padded.strides
        shape = (channels, *self.kernel, batch, *out)
        steps = [s * d for s, d in zip(of_axis, self.dilations, strict=True)]
        hops = [s * d for s, d in zip(of_axis, self.strides, strict=True)]
        windows = np.lib.stride_tricks.as_strided(
            padded, shape, (of_channel, *steps, of_batch, *hops), writeable=False
        )
        fan_in = channels // self.groups * prod(self.kernel)
        return windows.reshape(self.groups, fan_in, batch * prod(out))


def _rows(value: NDArray[Any], *, columns: bool) -> Float32:
    """The last axis (or the last but one) as columns of a matrix with all others as its rows."""
    x = value.astype(np.float32, copy=False)
    if columns and x.ndim > 1:
        x = x.swapaxes(-1, -2)
    return x.reshape(-1, x.shape[-1])
