"""Models of integers, for tests."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)
UINT8, INT8, FLOAT = TensorProto.UINT8, TensorProto.INT8, TensorProto.FLOAT
TYPES = {"u8": np.uint8, "s8": np.int8}


def levels(kind, *shape):
    """Integers of a type; signed ones of 7 bits, which onnxruntime multiplies right everywhere."""
    info = np.iinfo(TYPES[kind])
    if kind == "s8":
        return RNG.integers(-63, 64, shape).astype(np.int8)
    return RNG.integers(info.min, info.max + 1, shape).astype(TYPES[kind])


def zeros_of(kind, *shape):
    return levels(kind, *shape) // 4


def scales(*shape):
    return RNG.uniform(0.01, 0.1, shape).astype(np.float32)


def model_of(nodes, values, feed, outputs, opset=17):
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in feed.items()
        ],
        [helper.make_tensor_value_info(n, kind, None) for n, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)
