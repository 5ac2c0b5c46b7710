"""Whether onnxruntime computes integers exactly on this machine."""

from __future__ import annotations

from functools import cache

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from onnx_sipp.calibration.session import open_session, run_session

__all__ = ["CUTS_OFF", "cuts_off_sums"]

CUTS_OFF = (
    "this processor has no instructions for sums of 8-bit products (VNNI), so onnxruntime cuts off "
    "sums of two that are large: what was measured of the quantised model holds for such "
    "processors, it errs less on others"
)
_LENGTH, _OUTPUTS = 64, 16


@cache
def cuts_off_sums() -> bool:
    """Whether onnxruntime's products of uint8 and int8 go wrong here where both are large.

    x86 processors without VNNI add two products in 16 bits, which saturates (onnxruntime's manual,
    "Quantize ONNX models", on U8S8).
    """
    weight = np.full((_LENGTH, _OUTPUTS), 127, np.int8)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "integers",
        [value("x", TensorProto.UINT8, [1, _LENGTH])],
        [value("y", TensorProto.INT32, [1, _OUTPUTS])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = open_session(model.SerializeToString(), folder=None, threads=1, providers=None)
    (found,) = run_session(session, None, {"x": np.full((1, _LENGTH), 255, np.uint8)})
    return bool((found != _LENGTH * 255 * 127).any())
