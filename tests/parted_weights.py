"""A weight in blocks."""

from small_models import make_model, weights

from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.weight_groups import group_weights


def parted(transposed, size=12, outs=10, fan_in=4):
    """The only weight of a model, parted into blocks of so many weights."""
    stored = weights(outs, fan_in) if transposed else weights(fan_in, outs)
    nodes = [("Gemm", "x w", "y", {"transB": int(transposed)})]
    model = lower(Model(make_model(nodes, {"w": stored}, {"x": ["n", fan_in]})))
    (weight,) = group_weights(model, find_layers(model).layers, size)
    return model, weight
