"""The ONNX graphs of the four trained networks."""

import onnx

from digits_models.graph import GraphBuilder
from digits_models.networks import (
    EncoderLayer,
    LeNet5,
    LeNet300,
    ResidualBlock,
    ResNet,
    Transformer,
)


def lenet300_graph(network: LeNet300) -> onnx.ModelProto:
    """Returns the model of a trained LeNet-300-100."""
    builder = GraphBuilder()
    flat = builder.op("Flatten", ["input"], "flatten", axis=1)
    hidden = builder.op("Relu", [builder.gemm(flat, network.fc1, "fc1")], "relu1")
    hidden = builder.op("Relu", [builder.gemm(hidden, network.fc2, "fc2")], "relu2")
    return builder.build("lenet300", builder.gemm(hidden, network.fc3, "fc3"))


def lenet5_graph(network: LeNet5) -> onnx.ModelProto:
    """Returns the model of a trained LeNet-5."""
    builder = GraphBuilder()
    value = "input"
    for i, conv in enumerate((network.conv1, network.conv2), start=1):
        value = builder.conv(value, conv, f"conv{i}")
        value = builder.op("Relu", [value], f"relu{i}")
        value = builder.op("MaxPool", [value], f"pool{i}", kernel_shape=[2, 2], strides=[2, 2])
    value = builder.op("Flatten", [value], "flatten", axis=1)
    value = builder.op("Relu", [builder.gemm(value, network.fc1, "fc1")], "relu3")
    value = builder.op("Relu", [builder.gemm(value, network.fc2, "fc2")], "relu4")
    return builder.build("lenet5", builder.gemm(value, network.fc3, "fc3"))


def resnet_graph(network: ResNet) -> onnx.ModelProto:
    """Returns the model of a trained residual network."""
    builder = GraphBuilder()
    value = builder.conv("input", network.stem_conv, "stem.conv")
    value = builder.batch_norm(value, network.stem_bn, "stem.bn")
    value = builder.op("Relu", [value], "stem.relu")
    for name, block in network.blocks.items():
        if not isinstance(block, ResidualBlock):
            raise TypeError(f"{name} is not a residual block")
        value = _residual_block(builder, value, block, name)
    value = builder.op("GlobalAveragePool", [value], "pool")
    value = builder.op("Flatten", [value], "flatten", axis=1)
    return builder.build("resnet_bn", builder.gemm(value, network.fc, "fc"))


def _residual_block(builder: GraphBuilder, source: str, block: ResidualBlock, name: str) -> str:
    branch = builder.conv(source, block.conv1, f"{name}.conv1")
    branch = builder.batch_norm(branch, block.bn1, f"{name}.bn1")
    branch = builder.op("Relu", [branch], f"{name}.relu1")
    branch = builder.conv(branch, block.conv2, f"{name}.conv2")
    branch = builder.batch_norm(branch, block.bn2, f"{name}.bn2")
    if block.resizes:
        source = builder.conv(source, block.shortcut_conv, f"{name}.shortcut.conv")
        source = builder.batch_norm(source, block.shortcut_bn, f"{name}.shortcut.bn")
    total = builder.op("Add", [branch, source], f"{name}.add")
    return builder.op("Relu", [total], f"{name}.relu2")


def transformer_graph(network: Transformer) -> onnx.ModelProto:
    """Returns the model of a trained transformer encoder."""
    builder = GraphBuilder()
    axes = builder.constant("rows.axes", [1])
    tokens = builder.op("Squeeze", ["input", axes], "rows")
    tokens = builder.matmul_add(tokens, network.embed, "embed")
    position = builder.constant("position.weight", network.position)
    tokens = builder.op("Add", [tokens, position], "position")
    for name, layer in network.layers.items():
        if not isinstance(layer, EncoderLayer):
            raise TypeError(f"{name} is not an encoder layer")
        tokens = _encoder_layer(builder, tokens, layer, name)
    tokens = builder.layer_norm(tokens, network.norm, "norm")
    pooled = builder.op("ReduceMean", [tokens], "pool", axes=[1], keepdims=0)
    return builder.build("transformer", builder.gemm(pooled, network.head, "head"))


def _encoder_layer(builder: GraphBuilder, tokens: str, layer: EncoderLayer, name: str) -> str:
    value = builder.layer_norm(tokens, layer.norm1, f"{name}.norm1")
    value = _attention(builder, value, layer, f"{name}.attention")
    tokens = builder.op("Add", [tokens, value], f"{name}.residual1")
    value = builder.layer_norm(tokens, layer.norm2, f"{name}.norm2")
    value = builder.matmul_add(value, layer.ffn1, f"{name}.ffn1")
    value = builder.gelu(value, f"{name}.gelu")
    value = builder.matmul_add(value, layer.ffn2, f"{name}.ffn2")
    return builder.op("Add", [tokens, value], f"{name}.residual2")


def _attention(builder: GraphBuilder, tokens: str, layer: EncoderLayer, name: str) -> str:
    width = layer.out.in_features
    size = width // layer.heads
    split = builder.constant(f"{name}.split", [0, 0, layer.heads, size])
    merge = builder.constant(f"{name}.merge", [0, 0, width])
    scale = builder.constant(f"{name}.scale_factor", size**-0.5)
    parts = []
    for part, linear, order in (
        ("query", layer.query, [0, 2, 1, 3]),
        ("key", layer.key, [0, 2, 3, 1]),
        ("value", layer.value, [0, 2, 1, 3]),
    ):
        value = builder.matmul_add(tokens, linear, f"{name}.{part}")
        value = builder.op("Reshape", [value, split], f"{name}.{part}.heads")
        value = builder.op("Transpose", [value], f"{name}.{part}.order", perm=order)
        parts.append(value)
    value = builder.op("MatMul", parts[:2], f"{name}.scores")
    value = builder.op("Mul", [value, scale], f"{name}.scale")
    value = builder.op("Softmax", [value], f"{name}.softmax", axis=-1)
    value = builder.op("MatMul", [value, parts[2]], f"{name}.context")
    value = builder.op("Transpose", [value], f"{name}.context.order", perm=[0, 2, 1, 3])
    value = builder.op("Reshape", [value, merge], f"{name}.context.merge")
    return builder.matmul_add(value, layer.out, f"{name}.out")
