"""Which tensors of a model might be packed, and what is against it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto

from onnx_sipp.graph.model import Model
from onnx_sipp.graph.tensors import is_parameter, payload_bytes
from onnx_sipp.graph.walk import all_nodes, holder_of, main_opset
from onnx_sipp.packing.chains import OLDEST_OPSET
from onnx_sipp.packing.record import Home
from onnx_sipp.report.packing import LeftTensor

__all__ = ["LEAST_BYTES", "Candidate", "find_candidates", "free_prefix"]

# A tensor is packed if that saves as many bytes.
LEAST_BYTES = 1024
_PAYLOADS = ("float_data", "double_data", "int32_data")


@dataclass(frozen=True)
class Candidate:
    """A tensor of the main graph.

    Attributes:
        name: of the tensor.
        index: among the initializers, or of its Constant node among the nodes.
        tensor: as the model has it.
        node: its Constant node, None for an initializer.
    """

    name: str
    index: int
    tensor: TensorProto
    node: NodeProto | None

    def home(self) -> Home:
        """Where it is, without its elements; the field that they were in stays known."""
        if self.node is None:
            holder: TensorProto | NodeProto = TensorProto.FromString(
                self.tensor.SerializeToString()
            )
        else:
            holder = NodeProto.FromString(self.node.SerializeToString())
        bare = holder if isinstance(holder, TensorProto) else holder_of(holder)
        assert isinstance(bare, TensorProto)
        if bare.HasField("raw_data"):
            bare.raw_data = b""
        for field in (*_PAYLOADS, "external_data"):
            bare.ClearField(field)
        return Home(self.index, holder)


def find_candidates(model: Model) -> tuple[list[Candidate], list[LeftTensor]]:
    """Part the larger parameters into those that can be packed, and others with the reason."""
    proto = model.proto
    whole = _against_all(proto)
    inputs = {value.name for value in proto.graph.input}
    candidates, left, reached = [], [], set()
    for candidate in _main_graph(proto):
        reached.add(id(candidate.tensor))
        reason = whole
        if candidate.name in inputs:
            reason = "it is also an input of the graph, which may override it"
        if reason:
            left.append(LeftTensor(candidate.name, payload_bytes(candidate.tensor), reason))
        else:
            candidates.append(candidate)
    for holder in model.sites.holders:
        if isinstance(holder, TensorProto) and id(holder) not in reached and _is_large(holder):
            reason = "it is inside a subgraph, a function or a sparse tensor"
            left.append(LeftTensor(holder.name or "(unnamed)", payload_bytes(holder), reason))
    return candidates, left


def _main_graph(proto: ModelProto) -> Iterator[Candidate]:
    for index, tensor in enumerate(proto.graph.initializer):
        if _is_large(tensor):
            yield Candidate(tensor.name, index, tensor, None)
    for index, node in enumerate(proto.graph.node):
        holder = holder_of(node)
        if isinstance(holder, TensorProto) and _is_large(holder):
            yield Candidate(node.output[0], index, holder, node)


def _is_large(tensor: TensorProto) -> bool:
    return is_parameter(tensor) and payload_bytes(tensor) > LEAST_BYTES


def _against_all(proto: ModelProto) -> str:
    """Why nothing in a model can be packed, "" if something can."""
    opset = main_opset(proto)
    if opset < OLDEST_OPSET:
        return (
            f"opset {opset} lacks the operators to rebuild it (CumSum, "
            f"ScatterElements); convert the model to opset {OLDEST_OPSET} or later"
        )
    if proto.ir_version < 4:
        return (
            f"IR version {proto.ir_version} makes every stored tensor an input of the graph; "
            "convert the model to IR version 4 or later"
        )
    return ""


def free_prefix(proto: ModelProto) -> str:
    """A short prefix that no name of a model begins with."""
    names = {tensor.name for tensor in proto.graph.initializer}
    names.update(value.name for value in proto.graph.input)
    for node in all_nodes(proto):
        names.update(node.output, node.input)
        for attribute in node.attribute:
            graphs = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            names.update(tensor.name for graph in graphs for tensor in graph.initializer)
            names.update(value.name for graph in graphs for value in graph.input)
    prefix = "pk"
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    return prefix
