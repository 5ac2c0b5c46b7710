"""Run the operators that make tensors of constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from onnx_sipp.calibration.session import open_session, run_session
from onnx_sipp.graph.messages import serialized

__all__ = ["rebuilt"]


def rebuilt(
    names: Sequence[str],
    nodes: Sequence[NodeProto],
    tensors: Sequence[TensorProto],
    model: ModelProto,
) -> list[NDArray[Any]]:
    """What onnxruntime makes of constants.

    Args:
        names: of the tensors that are asked for.
        nodes: that make them, in topological order.
        tensors: that they read, elements inside.
        model: that they are part of.

    Raises:
        SippError: onnxruntime refuses them.
    """
    graph = helper.make_graph(
        nodes, "rebuild", [], [ValueInfoProto(name=name) for name in names], tensors
    )
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = open_session(serialized(alone), folder=None, threads=1, providers=None)
    return [np.asarray(values) for values in run_session(session, names, {})]
