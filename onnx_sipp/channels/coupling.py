"""Go through a graph and find what must be cut together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_sipp.channels import elementwise as same
from onnx_sipp.channels import moving, reshaping, spatial, weighing
from onnx_sipp.channels.trace import Stuck, Trace, called
from onnx_sipp.channels.units import Units
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.kinds import node_kind
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.tensors import is_parameter

__all__ = ["coupled"]

Rule = Callable[[NodeProto, int, Trace], None]

_RULES: Mapping[tuple[str, str], Rule] = {
    **dict.fromkeys((("", op) for op in same.ELEMENTWISE), same.elementwise),
    **dict.fromkeys(
        (("", op) for op in ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool",
                             "GlobalLpPool", "MaxPool")),
        spatial.pooling,
    ),
    **dict.fromkeys((("", op) for op in ("Resize", "Upsample")), spatial.resizing),
    **dict.fromkeys(
        (("", op) for op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze")), reshaping.reshape
    ),
    **dict.fromkeys(
        (("", op) for op in ("LayerNormalization", "RMSNormalization")), same.layer_norm
    ),
    **dict.fromkeys(
        (("", op) for op in ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "CumSum")),
        same.softmax,
    ),
    **dict.fromkeys(
        (("", op) for op in ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
                             "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
                             "ReduceSumSquare", "ArgMax", "ArgMin")),
        moving.reduction,
    ),
    **dict.fromkeys(
        (("", op) for op in ("BatchNormalization", "InstanceNormalization")), same.per_channel
    ),
    **dict.fromkeys(
        (("", op) for op in ("QuantizeLinear", "DequantizeLinear")), same.quantizing
    ),
    **dict.fromkeys(
        (("", "Conv"), ("", "ConvTranspose"), ("com.microsoft", "FusedConv")),
        weighing.convolution,
    ),
    **dict.fromkeys((("", "Gemm"), ("com.microsoft", "FusedGemm")), weighing.gemm),
    **dict.fromkeys((("com.microsoft", op) for op in ("Gelu", "FastGelu", "QuickGelu")),
                    same.elementwise),
    **dict.fromkeys((("", op) for op in ("DepthToSpace", "SpaceToDepth")), spatial.depth_space),
    ("", "Concat"): moving.concat,
    ("", "Expand"): same.expand,
    ("", "Gather"): moving.gather,
    ("", "MatMul"): weighing.matmul,
    ("", "Pad"): spatial.padding,
    ("", "Slice"): moving.slicing,
    ("", "Split"): moving.splitting,
    ("", "Tile"): moving.tiling,
    ("", "Transpose"): reshaping.transpose,
}  # fmt: skip
# They tell lengths, and have no channels themselves.
_MEASURING = ("Shape", "Size", "Constant")


def coupled(
    model: Model,
    flow: Flow,
    shapes: Mapping[str, tuple[int, ...]],
    values: Mapping[str, NDArray[Any]],
) -> Trace:
    """Find which places of which tensors are cut together.

    Args:
        model: is not changed.
        flow: of its main graph.
        shapes: of its tensors, for one sample.
        values: elements of small tensors, for that sample.
    """
    opsets = {entry.domain: entry.version for entry in model.proto.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 1))
    trace = Trace(Units(), flow.constants, shapes, values, opset)
    inputs = {value.name for value in model.proto.graph.input} - set(model.stored)
    for name, tensor in model.stored.items():
        if is_parameter(tensor):
            trace.axes[name] = [
                trace.units.fresh(size) if size > 1 else np.zeros(size, np.int64)
                for size in tensor.dims
            ]
    for name in inputs & set(shapes):
        trace.axes[name] = [trace.units.fresh(size) for size in shapes[name]]
        trace.outside += trace.axes[name]
        _fix(trace, name, f"they are the input {name!r} of the model")
    nodes = model.proto.graph.node
    for index in flow.order:
        _follow(nodes[index], index, trace, flow)
    for name in flow.outputs:
        _fix(trace, name, f"they reach the output {name!r} of the model")
    return trace


def _follow(node: NodeProto, index: int, trace: Trace, flow: Flow) -> None:
    domain, op = node_kind(node)
    if not domain and op in _MEASURING:
        return
    rule = _RULES.get((domain, op))
    reason = "it is not known how its channels hang together"
    if rule is not None:
        try:
            rule(node, index, trace)
        except Stuck as found:
            reason = str(found)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            reason = f"it is not as expected ({error})"
        else:
            return
    for name in flow.reads[index]:
        _fix(trace, name, f"{called(node)}: {reason}")
    for name in node.output:
        trace.axes.pop(name, None)


def _fix(trace: Trace, name: str, why: str) -> None:
    for ids in trace.axes.get(name, []):
        trace.units.fix(ids, why)
