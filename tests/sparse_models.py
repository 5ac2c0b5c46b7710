"""Models with many zeros, for tests of packing."""

import numpy as np
import onnx
from small_models import make_model

SHAPES = {"w1": (60, 50), "w2": (50, 40), "w3": (40, 30)}


def sparse(*shape, share, seed=0, dtype=np.float32):
    """Random elements, so many of them zero."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape).astype(dtype)
    return np.where(rng.random(shape) < share, values.dtype.type(0), values)


def three_layers(share, opset=17, dtype=np.float32):
    """MatMuls over sparse weights, with Relus between."""
    weights = {
        name: sparse(*shape, share=share, seed=seed, dtype=dtype)
        for seed, (name, shape) in enumerate(SHAPES.items())
    }
    nodes = [
        ("MatMul", "x w1", "a"),
        ("Relu", "a", "b"),
        ("MatMul", "b w2", "c"),
        ("Relu", "c", "d"),
        ("MatMul", "d w3", "y"),
    ]
    model = make_model(nodes, weights, {"x": ["n", 60]}, {"y": ["n", 30]}, opset=opset)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    return model
