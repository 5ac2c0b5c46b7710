"""Models of a few nodes, for tests."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_sipp.graph.walk import all_sites

FLOAT = TensorProto.FLOAT


def weights(*shape, seed=0):
    """Random float32 values, none of them zero."""
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return np.where(values == 0, np.float32(1), values)


def tensor(name, value):
    """A TensorProto: the one given, or one made of an array."""
    if isinstance(value, TensorProto):
        value.name = name
        return value
    return numpy_helper.from_array(np.asarray(value), name)


def constant(name, value):
    """A Constant node."""
    return helper.make_node("Constant", [], [name], value=tensor("", value))


def make_model(nodes, constants, inputs=None, outputs=("y",), functions=(), domains=(), opset=17):
    """A model.

    Args:
        nodes: NodeProtos, or tuples ``(op, inputs, outputs, attributes...)``.
        constants: arrays or TensorProtos by name, stored as initializers.
        inputs: shapes by name; ``{"x": ["n", 4]}`` by default.
        outputs: names, or shapes by name.
        functions: FunctionProtos.
        domains: to import beside ONNX's own.
        opset: version of ONNX's own operators.
    """
    if not isinstance(outputs, dict):
        outputs = dict.fromkeys(outputs)
    graph = helper.make_graph(
        [as_node(node) for node in nodes],
        "graph",
        [
            helper.make_tensor_value_info(name, FLOAT, shape)
            for name, shape in (inputs or {"x": ["n", 4]}).items()
        ],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [tensor(name, value) for name, value in constants.items()],
    )
    imports = [
        helper.make_opsetid("", opset),
        *(helper.make_opsetid(domain, 1) for domain in domains),
    ]
    ir_version = 8 if opset < 21 else 10
    return helper.make_model(
        graph, opset_imports=imports, ir_version=ir_version, functions=functions
    )


def as_node(node):
    """A NodeProto of ``(op, inputs, outputs)`` or ``(op, inputs, outputs, attributes)``."""
    if isinstance(node, onnx.NodeProto):
        return node
    op_type, inputs, outputs, *rest = node
    return helper.make_node(op_type, inputs.split(), outputs.split(), **(rest[0] if rest else {}))


def mlp():
    """Two Gemms with a Relu between, 32 + 24 weights."""
    return make_model(
        [
            ("Gemm", "x w1 b1", "h", {"name": "first"}),
            ("Relu", "h", "r"),
            ("Gemm", "r w2 b2", "y", {"name": "second"}),
        ],
        {"w1": weights(4, 8), "b1": weights(8), "w2": weights(8, 3, seed=1), "b2": weights(3)},
        outputs={"y": ["n", 3]},
    )


def tied(weight):
    """One tensor that two layers multiply, the second one turned round: an autoencoder."""
    nodes = [
        ("Gemm", "x w", "h", {"name": "encode"}),
        ("Relu", "h", "r"),
        ("Gemm", "r w", "y", {"name": "decode", "transB": 1}),
    ]
    return make_model(nodes, {"w": weight})


def cell(scale=0.5):
    """A state of two numbers: ``hn = tanh(x w + h0 u)``, ``y = hn v``."""
    return make_model(
        [
            ("MatMul", "x w", "a"),
            ("MatMul", "h0 u", "b"),
            ("Add", "a b", "s"),
            ("Tanh", "s", "hn"),
            ("MatMul", "hn v", "y"),
        ],
        {"w": weights(4, 2), "u": scale * weights(2, 2, seed=1), "v": weights(2, 3, seed=2)},
        inputs={"x": [1, 4], "h0": [1, 2]},
        outputs={"y": [1, 3], "hn": [1, 2]},
    )


def save_external(model, path, location="weights.bin"):
    """Write a model with every initializer in a file of its own; returns the path."""
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def sites_that_may_change(model, layers, report=None):
    """Where a lowered model keeps the weights of layers, and the biases that a report names."""
    names = {layer.weight for layer in layers}
    sites = {site for name in names for site in model.plan.sites[name]}
    biases = {name for row in report.layers for name in row.bias.split(", ")} if report else set()
    return sites | {twin.site for twin in model.plan.twins.values() if twin.name in biases}


def without_payloads(model, sites):
    """Clear the elements at some sites of a ModelProto; everything else stays."""
    fields = ("raw_data", "float_data", "double_data", "int32_data", "f", "floats")
    for site, holder in enumerate(all_sites(model)):
        if site in sites:
            for field in fields:
                if field in holder.DESCRIPTOR.fields_by_name:
                    holder.ClearField(field)


def without_new_biases(model, report):
    """A copy of a pruned model without the biases that were added, as the report says."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    added = [row.bias for row in report.layers if row.bias_is_new]
    for node in copy.graph.node:
        if node.op_type in ("Conv", "Gemm") and node.input[-1] in added:
            assert len(node.input) == 3
            added.remove(node.input.pop())
    assert not added
    names = [row.bias for row in report.layers if row.bias_is_new]
    for _ in names:
        assert copy.graph.initializer.pop().name in names
    return copy


def deep():
    """Layers enough for several budgets, of which two share a weight."""
    nodes = [
        ("Gemm", "x a b", "h0", {"name": "first"}),
        ("Relu", "h0", "r0"),
        ("MatMul", "r0 s", "h1", {"name": "one"}),
        ("Relu", "h1", "r1"),
        ("MatMul", "r1 s", "h2", {"name": "other"}),
        ("Gemm", "h2 z", "y", {"name": "last"}),
    ]
    made = {"a": weights(4, 12), "b": weights(12), "s": weights(12, 12, seed=1)}
    return make_model(nodes, {**made, "z": weights(12, 3, seed=2)})


def other_model():
    """`mlp`, but for something that nothing depends on."""
    proto = mlp()
    proto.producer_name = "somebody else"
    return proto
