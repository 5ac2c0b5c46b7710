"""A builder of ONNX graphs from the trained layers of PyTorch networks.

Each method adds the node or nodes of one layer, and returns the name of the
layer's output: ``<layer>.output``. Weights are ``<layer>.weight`` and so on.
"""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

OPSET = 17
IR_VERSION = 8


class GraphBuilder:
    """Collects the nodes and weights of one model."""

    def __init__(self) -> None:
        """Starts an empty graph."""
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []

    def constant(
        self, name: str, value: Tensor | npt.NDArray[np.generic] | list[int] | float
    ) -> str:
        """Adds an initializer.

        Args:
            name: The name of the initializer.
            value: A tensor or an array; a list of integers for a shape or
                axes; or a number.

        Returns:
            The name.
        """
        if isinstance(value, Tensor):
            array = np.ascontiguousarray(value.detach().numpy())
        elif isinstance(value, list):
            array = np.array(value, dtype=np.int64)
        else:
            array = np.asarray(value, dtype=np.float32)
        self._initializers.append(numpy_helper.from_array(array, name))
        return name

    def op(
        self,
        kind: str,
        inputs: list[str],
        name: str,
        **attributes: float | list[int],
    ) -> str:
        """Adds a node of any operator and returns the name of its output."""
        output = f"{name}.output"
        node = helper.make_node(kind, inputs, [output], name=name)
        node.attribute.extend(
            helper.make_attribute(key, value) for key, value in attributes.items()
        )
        self._nodes.append(node)
        return output

    def gemm(self, source: str, layer: nn.Linear, name: str) -> str:
        """Adds a linear layer as a Gemm, with the weight as [out, in]."""
        weight = self.constant(f"{name}.weight", layer.weight)
        bias = self.constant(f"{name}.bias", layer.bias)
        return self.op("Gemm", [source, weight, bias], name, transB=1)

    def matmul_add(self, source: str, layer: nn.Linear, name: str) -> str:
        """Adds a linear layer as a MatMul with weight [in, out], and an Add."""
        weight = self.constant(f"{name}.weight", layer.weight.T)
        bias = self.constant(f"{name}.bias", layer.bias)
        product = self.op("MatMul", [source, weight], f"{name}.matmul")
        return self.op("Add", [product, bias], f"{name}.add")

    def conv(self, source: str, layer: nn.Conv2d, name: str) -> str:
        """Adds a convolution, with a bias if the layer has one."""
        inputs = [source, self.constant(f"{name}.weight", layer.weight)]
        if layer.bias is not None:
            inputs.append(self.constant(f"{name}.bias", layer.bias))
        padding = [int(size) for size in layer.padding]
        return self.op(
            "Conv",
            inputs,
            name,
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=padding + padding,
        )

    def batch_norm(self, source: str, layer: nn.BatchNorm2d, name: str) -> str:
        """Adds a batch normalization with the running statistics.

        Args:
            source: The value to normalize.
            layer: The trained layer.
            name: The name of the node.

        Returns:
            The name of the output.

        Raises:
            ValueError: The layer keeps no running statistics.
        """
        mean, variance = layer.running_mean, layer.running_var
        if mean is None or variance is None:
            raise ValueError(f"{name} has no running statistics")
        inputs = [
            source,
            self.constant(f"{name}.scale", layer.weight),
            self.constant(f"{name}.bias", layer.bias),
            self.constant(f"{name}.mean", mean),
            self.constant(f"{name}.variance", variance),
        ]
        return self.op("BatchNormalization", inputs, name, epsilon=layer.eps)

    def layer_norm(self, source: str, layer: nn.LayerNorm, name: str) -> str:
        """Adds a layer normalization over the last axis."""
        inputs = [
            source,
            self.constant(f"{name}.scale", layer.weight),
            self.constant(f"{name}.bias", layer.bias),
        ]
        return self.op("LayerNormalization", inputs, name, axis=-1, epsilon=layer.eps)

    def gelu(self, source: str, name: str) -> str:
        """Adds an exact Gelu out of Erf; the Gelu operator came with opset 20."""
        root_two = self.constant(f"{name}.root_two", 2**0.5)
        one = self.constant(f"{name}.one", 1.0)
        half = self.constant(f"{name}.half", 0.5)
        scaled = self.op("Div", [source, root_two], f"{name}.div")
        erf = self.op("Erf", [scaled], f"{name}.erf")
        raised = self.op("Add", [erf, one], f"{name}.add")
        product = self.op("Mul", [source, raised], f"{name}.mul")
        return self.op("Mul", [product, half], f"{name}.halve")

    def build(self, name: str, output: str, image: tuple[int, ...] = (1, 8, 8)) -> onnx.ModelProto:
        """Finishes the graph and checks the model.

        Args:
            name: The name of the graph.
            output: The value that becomes the graph's output ``logits``.
            image: The shape of one image.

        Returns:
            The model, from ``input`` [batch, *image] to ``logits`` [batch, 10].

        Raises:
            ValueError: ``output`` is not the output of the last node.
        """
        last = self._nodes[-1]
        if last.output[0] != output:
            raise ValueError(f"{output} is not the output of the last node")
        last.output[0] = "logits"
        graph = helper.make_graph(
            self._nodes,
            name,
            [_float_value("input", ["batch", *image])],
            [_float_value("logits", ["batch", 10])],
            self._initializers,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=IR_VERSION,
            producer_name="onnx-sipp make_models",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def _float_value(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
