"""The input vectors of a transposed convolution: one per place of its output.

A transposed convolution adds each input, weighted, to the outputs that a window reaches. Seen from
an output, it is a product with the inputs that reach it: im2col of the input with zeros between
its places, the kernel mirrored. Laid out from the far end to the near one, that needs no mirroring
of the weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.unfolding.base import PIECE_BYTES, Float32
from onnx_sipp.unfolding.conv import image_pairs, windows

__all__ = ["ConvTransposeUnfolding"]


@dataclass(frozen=True)
class ConvTransposeUnfolding:
    """Places of the output of an ONNX ConvTranspose with any number of spatial axes.

    Attributes:
        kernel: kernel size per spatial axis.
        strides: stride per spatial axis.
        dilations: dilation per spatial axis.
        pads: what is cut off the output before and after, per spatial axis, where ``auto_pad`` is
            ``NOTSET`` and there is no ``output_shape``.
        output_padding: what is added at the end, per spatial axis.
        output_shape: spatial size of the output if the node gives it; the pads follow from it.
        groups: number of groups.
        auto_pad: ONNX ``auto_pad``: ``NOTSET``, ``VALID``, ``SAME_UPPER`` or ``SAME_LOWER``.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    output_padding: tuple[int, ...]
    output_shape: tuple[int, ...] | None = None
    groups: int = 1
    auto_pad: str = "NOTSET"

    def output_size(self, spatial: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Per spatial axis, what is cut off before, and the size of the output."""
        return tuple(self._along(axis, size) for axis, size in enumerate(spatial))

    def _along(self, axis: int, size: int) -> tuple[int, int]:
        reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
        whole = (size - 1) * self.strides[axis] + reach + self.output_padding[axis]
        same = self.auto_pad in ("SAME_UPPER", "SAME_LOWER")
        if self.output_shape is None and not same:
            before, after = self.pads[axis] if self.auto_pad == "NOTSET" else (0, 0)
            return before, whole - before - after
        given = size * self.strides[axis]
        if self.output_shape is not None:
            given = self.output_shape[axis]
        cut = max(0, whole - given)
        before = cut // 2 if self.auto_pad == "SAME_UPPER" else cut - cut // 2
        return before, given if self.output_shape is not None else whole - cut

    def unfold(self, activation: NDArray[Any]) -> Float32:
        """See `Unfolding.unfold`; the tensor of one feed is ``[batch, channels, *spatial]``."""
        return self._columns(self._spread(activation))

    def patch_bytes(self, shape: tuple[int, ...]) -> int:
        """See `Unfolding.patch_bytes`."""
        batch, channels, *spatial = shape
        out = prod(size for _, size in self.output_size(tuple(spatial)))
        return 4 * batch * channels * prod(self.kernel) * out

    def cut(self, activation: NDArray[Any], parts: int) -> Iterator[Float32]:
        """See `Unfolding.cut`."""
        spread = self._spread(activation)
        reach = self.dilations[0] * (self.kernel[0] - 1) + 1
        rows = spread.shape[2] - reach + 1
        for part in np.array_split(np.arange(rows), min(parts, rows)):
            first, last = int(part[0]), int(part[-1])
            yield self._columns(spread[:, :, rows - 1 - last : rows - 1 - first + reach])

    def pairs(
        self, activation: NDArray[Any], outputs: Sequence[NDArray[Any]], limit: int = PIECE_BYTES
    ) -> Iterator[tuple[Float32, list[Float32]]]:
        """See `Unfolding.pairs`."""
        return image_pairs(self, self.groups, activation, outputs, limit)

    def _spread(self, activation: NDArray[Any]) -> Float32:
        """Inputs with zeros between them, from the far end: window i is the i-th last output's."""
        x = activation.reshape(-1, *activation.shape[2:]).astype(np.float32, copy=False)
        sizes = self.output_size(x.shape[2:])
        reaches = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        lengths = [out + reach - 1 for (_, out), reach in zip(sizes, reaches, strict=True)]
        result = np.zeros((*x.shape[:2], *lengths), np.float32)
        source, target = [slice(None), slice(None)], [slice(None), slice(None)]
        for axis, (before, out) in enumerate(sizes):
            stride, end = self.strides[axis], out - 1 + before
            # Input q comes to lie at end - stride * q.
            first = max(0, -((lengths[axis] - 1 - end) // stride))
            last = min(x.shape[2 + axis] - 1, end // stride)
            if last < first:
                return result
            near = end - stride * last
            source.append(slice(last, first - 1 if first else None, -1))
            target.append(slice(near, end - stride * first + 1, stride))
        result[tuple(target)] = x[tuple(source)]
        return result

    def _columns(self, spread: Float32) -> Float32:
        batch, channels, *spatial = spread.shape
        axes = len(spatial)
        out = [
            size - dilation * (kernel - 1)
            for size, kernel, dilation in zip(spatial, self.kernel, self.dilations, strict=True)
        ]
        found = windows(spread, self.kernel, self.dilations, (1,) * axes, out)
        nearest_first = np.flip(found, tuple(range(-axes, 0)))
        fan_in = channels // self.groups * prod(self.kernel)
        return nearest_first.reshape(self.groups, fan_in, batch * prod(out))
