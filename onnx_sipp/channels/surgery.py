"""Cut units out of a model: of its constants, and of what says how long their axes are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnx_sipp.channels.trace import Edit, Trace
from onnx_sipp.channels.units import Ids
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.tensors import is_parameter

__all__ = ["cut_out"]

# The IR version from which on an initializer need not be an input.
_FREE_INITIALIZERS = 4


def cut_out(model: Model, trace: Trace, gone: Ids) -> ModelProto:
    """The model without some units.

    Args:
        model: is not changed.
        trace: of it.
        gone: roots of the units that go.
    """
    proto = model.inlined()

    def keeps(ids: Ids) -> NDArray[np.bool_]:
        return ~np.isin(trace.units.roots(ids), gone)

    shortened: dict[str, tuple[int, ...]] = {}
    for name, tensor in Model(proto).stored.items():
        axes = trace.axes.get(name, [])
        kept = [keeps(ids) for ids in axes]
        if is_parameter(tensor) and not all(k.all() for k in kept):
            values = model.read(name)[np.ix_(*(np.flatnonzero(k) for k in kept))]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
            shortened[name] = values.shape
    added = [_apply(proto, edit, edit.value(keeps), trace) for edit in trace.edits]
    _add_constants(proto, [tensor for tensor in added if tensor is not None])
    lengths = {
        name: tuple(int(keeps(ids).sum()) for ids in axes) for name, axes in trace.axes.items()
    }
    _update_notes(proto, trace, lengths)
    _drop_unused(proto, model.proto)
    return proto


def _apply(
    proto: ModelProto, edit: Edit, value: NDArray[np.generic], trace: Trace
) -> TensorProto | None:
    """Put another constant in the place of an operand, or another number in an attribute's.

    Returns:
        The constant, which is to be added; None if there is none.
    """
    node = proto.graph.node[edit.node]
    if isinstance(edit.place, str):
        old = next((a for a in node.attribute if a.name == edit.place), None)
        new = helper.make_attribute(edit.place, value.tolist())
        if old is None:
            node.attribute.append(new)
        else:
            old.CopyFrom(new)
        return None
    given = node.input[edit.place] if edit.place < len(node.input) else ""
    known = trace.values.get(given) if given in trace.constants else None
    if known is not None and np.array_equal(known, value):
        return None
    if known is None and not given and node.op_type != "Split":
        return None
    if node.op_type == "Split":
        for attribute in [a for a in node.attribute if a.name == "num_outputs"]:
            node.attribute.remove(attribute)
    name = _fresh_name(proto, f"{node.output[0]}.{edit.place}.cut")
    while len(node.input) <= edit.place:
        node.input.append("")
    node.input[edit.place] = name
    return numpy_helper.from_array(value, name)


def _add_constants(proto: ModelProto, tensors: Sequence[TensorProto]) -> None:
    """As initializers; up to IR version 3 these have to be inputs, too, which stay as they are."""
    if proto.ir_version >= _FREE_INITIALIZERS:
        proto.graph.initializer.extend(tensors)
        return
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in tensors]
    old = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *old])


def _fresh_name(proto: ModelProto, wanted: str) -> str:
    taken = {tensor.name for tensor in proto.graph.initializer}
    taken |= {name for node in proto.graph.node for name in (*node.input, *node.output)}
    name, number = wanted, 1
    while name in taken:
        name, number = f"{wanted}.{number}", number + 1
    return name


def _update_notes(proto: ModelProto, trace: Trace, lengths: Mapping[str, tuple[int, ...]]) -> None:
    """Correct what the file notes about the shapes of inner tensors."""
    for value in proto.graph.value_info:
        if value.name not in lengths or value.name not in trace.shapes:
            continue
        dims = value.type.tensor_type.shape.dim
        for dim, before, after in zip(
            dims, trace.shapes[value.name], lengths[value.name], strict=False
        ):
            if before != after and dim.HasField("dim_value"):
                dim.dim_value = after
            elif before != after:
                dim.ClearField("dim_param")
    for tensor in proto.graph.initializer:
        for value in proto.graph.input:
            if value.name == tensor.name:
                value.CopyFrom(
                    helper.make_tensor_value_info(value.name, tensor.data_type, tensor.dims)
                )


def _drop_unused(proto: ModelProto, before: ModelProto) -> None:
    """Take out constants that were read before and are no more."""
    once, now = _read(before), _read(proto)
    for node in [n for n in proto.graph.node if n.op_type == "Constant"]:
        if node.output[0] in once and node.output[0] not in now:
            proto.graph.node.remove(node)
    inputs = {value.name for value in proto.graph.input}
    for tensor in list(proto.graph.initializer):
        if tensor.name in once and tensor.name not in now and tensor.name not in inputs:
            proto.graph.initializer.remove(tensor)


def _read(proto: ModelProto) -> set[str]:
    found = {value.name for value in proto.graph.output}
    graphs: list[onnx.GraphProto] = [proto.graph]
    while graphs:
        for node in graphs.pop().node:
            found.update(node.input)
            graphs.extend(a.g for a in node.attribute if a.HasField("g"))
            graphs.extend(graph for a in node.attribute for graph in a.graphs)
    return found
