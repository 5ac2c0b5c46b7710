"""Rules for operators that work in each channel (axis 1) by itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto

from onnx_sipp.graph.dead.fields import Field, Mask, Step, along, project
from onnx_sipp.graph.dead.scope import TRIALS, Scope
from onnx_sipp.graph.node import attributes

__all__ = ["padding", "pooling", "resizing"]


def pooling(node: NodeProto, scope: Scope) -> Step | None:
    """A pool over equal elements gives the same, unless zeros of the padding are counted in."""
    found = attributes(node)
    if any(node.output[1:]):
        return None
    counts_zeros = node.op_type == "AveragePool" and (
        found.get("count_include_pad", 0) or scope.opset < 7
    )
    padded = (
        any(found.get("pads") or ())
        or found.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        or found.get("ceil_mode", 0)
    )
    return _by_channel(node, scope, fill=0.0 if counts_zeros and padded else None)


def resizing(node: NodeProto, scope: Scope) -> Step | None:
    """Interpolation between equal elements gives the same, unless it looks beyond the border."""
    found = attributes(node)
    outside = found.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    scales = found.get("scales")
    for name in node.input[1:3]:  # Resize: roi and scales; Upsample and early Resize: scales
        given = scope.known(name, TRIALS[0]) if name else None
        if given is not None and given.size:
            scales = given.tolist()
    if outside or not _same_channels(node, scope) or (scales is not None and scales[1] != 1):
        return None
    return _by_channel(node, scope)


def padding(node: NodeProto, scope: Scope) -> Step | None:
    """Pad around the channels: they stay constant if they equal what they are padded with."""
    found = attributes(node)
    pads = found.get("pads")
    fill = np.asarray(found.get("value", 0.0))
    if len(node.input) > 1:
        pads = scope.known(node.input[1], TRIALS[0])
    if len(node.input) > 2 and node.input[2]:
        given = scope.known(node.input[2], TRIALS[0])
        fill = np.asarray(np.nan) if given is None else given
    # A channel cut off at one end and added at the other would leave their number the same.
    if pads is None or min(pads, default=0) < 0 or not _same_channels(node, scope):
        return None
    borders = found.get("mode", "constant") == "constant"
    return _by_channel(node, scope, fill=float(fill.item()) if borders else None)


def _same_channels(node: NodeProto, scope: Scope) -> bool:
    """Whether input and output are known to have as many channels as each other."""
    before, after = (scope.shape(name) for name in (node.input[0], node.output[0]))
    if before is None or after is None or min(len(before), len(after)) < 2:
        return False
    return before[1] is not None and before[1] == after[1]


def _by_channel(node: NodeProto, scope: Scope, fill: float | None = None) -> Step | None:
    """Facts per channel are handed on.

    Args:
        node: its first input has channels along axis 1, as has its output.
        scope: of the graph.
        fill: what may be mixed in at the borders, NaN if that is unknown; None if nothing is.
    """
    source, output = node.input[0], node.output[0]
    values = scope.value(source)
    if values is None or values.ndim < 2:
        return None
    result: Field = along(values, 1).reshape(1, -1, *(1,) * (values.ndim - 2))
    if fill is not None:
        result = np.where(result == fill, result, np.nan)

    def reads(live: Mapping[str, Mask]) -> dict[str, Mask]:
        return {source: project(live[output], values.shape)}

    return Step({output: result}, reads)
