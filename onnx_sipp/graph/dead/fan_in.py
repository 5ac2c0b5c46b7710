"""How the fan-in of a layer lies along one axis of its activation."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.dead.fields import Mask
from onnx_sipp.graph.layers import Layer
from onnx_sipp.unfolding.base import MatMulUnfolding
from onnx_sipp.unfolding.conv import ConvUnfolding
from onnx_sipp.unfolding.transposed import ConvTransposeUnfolding

__all__ = ["FanIn"]


@dataclass(frozen=True)
class FanIn:
    """Channels of the activation, and the inputs of the weight matrix that read them.

    Attributes:
        groups: of the weight matrix.
        channels: of the activation.
        kernel: inputs per channel: the places of a convolution's kernel.
        apart: every group has channels of its own; else all read the same.
        axis: that the channels lie along; from the end if negative.
        padded: some patches may see zeros in the place of a channel.
    """

    groups: int
    channels: int
    kernel: int
    apart: bool
    axis: int
    padded: bool

    @classmethod
    def of(cls, layer: Layer) -> FanIn | None:
        """The fan-in of a layer, None if its unfolding is of an unknown kind."""
        groups, _, fan_in = layer.view.matrix
        how = layer.unfolding
        if isinstance(how, MatMulUnfolding):
            return cls(groups, fan_in, 1, apart=False, axis=-2 if how.columns else -1, padded=False)
        if not isinstance(how, (ConvUnfolding, ConvTransposeUnfolding)):
            return None
        kernel = prod(how.kernel)
        # A transposed convolution sees zeros between the places of its input, too.
        padded = isinstance(how, ConvTransposeUnfolding) or (
            how.auto_pad != "VALID" and (how.auto_pad != "NOTSET" or any(map(any, how.pads)))
        )
        channels = groups * fan_in // kernel
        return cls(groups, channels, kernel, apart=True, axis=1, padded=padded)

    def along(self, rank: int) -> int:
        """The axis of an activation of some rank; a vector has one only."""
        return 0 if rank == 1 else self.axis % rank

    def spread(self, channels: NDArray[Any]) -> NDArray[Any]:
        """From channels, or one value for all, to ``[group, fan_in]``."""
        shape = (self.groups, -1) if self.apart else (1, -1)
        rows = np.broadcast_to(channels, self.channels).reshape(shape)
        rows = np.broadcast_to(rows, (self.groups, rows.shape[1]))
        return np.repeat(rows, self.kernel, axis=1)

    def gathered(self, inputs: Mask) -> Mask:
        """From ``[group, fan_in]`` to channels: those that any of the inputs reads."""
        by_group: Mask = np.any(inputs.reshape(self.groups, -1, self.kernel), axis=2)
        return by_group.ravel() if self.apart else np.logical_or.reduce(by_group)
