"""Scales of quantised biases, which are products of two other scales of the model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_sipp.graph.tensors import is_external
from onnx_sipp.packing.record import Home

__all__ = ["find_products"]

# Bytes that a tensor must have for an operator in its place to pay.
_LEAST_BYTES = 64
_BIASED = ("Conv", "ConvTranspose", "Gemm")


def find_products(proto: ModelProto) -> Iterator[tuple[Home, NodeProto]]:
    """Scales of biases that are, to the bit, the scale of the input times those of the weight.

    A runtime that computes in integers wants it so, and quantisers write it so.

    Args:
        proto: the model; is not changed.

    Yields:
        Where the scale is, and the operator that makes it.
    """
    graph = proto.graph
    index = {tensor.name: number for number, tensor in enumerate(graph.initializer)}
    for value in graph.input:
        index.pop(value.name, None)
    makers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    found = set()
    for node in graph.node:
        if node.op_type not in _BIASED or len(node.input) < 3:
            continue
        if not all(name in makers and makers[name].input[1] in index for name in node.input):
            continue
        factors = [makers[name].input[1] for name in node.input]
        bias, tensors = factors[2], [graph.initializer[index[name]] for name in factors]
        if bias not in found and bias not in factors[:2] and _is_product(tensors):
            found.add(bias)
            bare = TensorProto(name=bias, dims=tensors[2].dims, data_type=tensors[2].data_type)
            if tensors[2].HasField("raw_data"):
                bare.raw_data = b""
            yield Home(index[bias], bare), helper.make_node("Mul", factors[:2], [bias])


def _is_product(tensors: list[TensorProto]) -> bool:
    if any(tensor.data_type != TensorProto.FLOAT or is_external(tensor) for tensor in tensors):
        return False
    one, other, product = map(numpy_helper.to_array, tensors)
    if product.nbytes < _LEAST_BYTES or product.ndim != 1:
        return False
    computed = one * other
    return computed.shape == product.shape and np.array_equal(computed, product)
