"""im2col: the input vectors of a convolution, one per place of its output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.unfolding.base import PIECE_BYTES, Float32, Unfolding

__all__ = ["ConvUnfolding", "image_pairs", "windows"]


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
        return image_pairs(self, self.groups, activation, outputs, limit)

    def _padded(self, activation: NDArray[Any]) -> Float32:
        x = activation.reshape(-1, *activation.shape[2:]).astype(np.float32, copy=False)
        pads = self.padding(x.shape[2:])
        return np.pad(x, ((0, 0), (0, 0), *pads)) if any(map(any, pads)) else x

    def _columns(self, padded: Float32) -> Float32:
        batch, channels, *spatial = padded.shape
        out = self.output_size(tuple(spatial))
        fan_in = channels // self.groups * prod(self.kernel)
        found = windows(padded, self.kernel, self.dilations, self.strides, out)
        return found.reshape(self.groups, fan_in, batch * prod(out))


def windows(
    padded: Float32,
    kernel: Sequence[int],
    dilations: Sequence[int],
    strides: Sequence[int],
    out: Sequence[int],
) -> Float32:
    """See ``[batch, channels, *spatial]`` as ``[channels, *kernel, batch, *out]``, not copied.

    Args:
        padded: the images, with all zeros around them.
        kernel: places of a window per spatial axis.
        dilations: distance of these places.
        strides: distance of the windows.
        out: number of windows.
    """
    of_batch, of_channel, *of_axis = padded.strides
    steps = [size * dilation for size, dilation in zip(of_axis, dilations, strict=True)]
    hops = [size * stride for size, stride in zip(of_axis, strides, strict=True)]
    shape = (padded.shape[1], *kernel, padded.shape[0], *out)
    return np.lib.stride_tricks.as_strided(
        padded, shape, (of_channel, *steps, of_batch, *hops), writeable=False
    )


def image_pairs(
    unfolding: Unfolding,
    groups: int,
    activation: NDArray[Any],
    outputs: Sequence[NDArray[Any]],
    limit: int,
) -> Iterator[tuple[Float32, list[Float32]]]:
    """`Unfolding.pairs` of ``[batch, channels, *spatial]``, whatever its windows are.

    Args:
        unfolding: of the layer.
        groups: of the layer.
        activation: as the node saw it.
        outputs: that were made of it.
        limit: bytes that a piece may take.
    """
    per_image = max(1, unfolding.patch_bytes((1, *activation.shape[1:])))
    step = max(1, limit // per_image)
    for start in range(0, len(activation), step):
        x = activation[start : start + step, None]
        targets = [_by_group(output[start : start + step], groups) for output in outputs]
        parts = -(-per_image // limit)
        first = 0
        for columns in unfolding.cut(x, parts) if parts > 1 else [unfolding.unfold(x)]:
            last = first + columns.shape[2]
            yield columns, [target[:, :, first:last] for target in targets]
            first = last


def _by_group(output: NDArray[Any], groups: int) -> Float32:
    """``[batch, out, *spatial]`` as ``[group, out / group, patches]``."""
    y = output.astype(np.float32, copy=False)
    y = y.reshape(len(y), groups, -1, prod(y.shape[2:])).transpose(1, 2, 0, 3)
    return y.reshape(*y.shape[:2], -1)
