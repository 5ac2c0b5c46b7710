"""Undo packing: every tensor dense again, where it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from onnx_sipp.errors import SippError
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.tensors import is_external, numpy_dtype
from onnx_sipp.graph.walk import holder_of
from onnx_sipp.packing.assembly import Assembled, Assembly
from onnx_sipp.packing.rebuild import rebuilt
from onnx_sipp.packing.record import Home, Record, read_record, remove_record

__all__ = ["UnpackResult", "unpack"]

# Elements of small tensors that are rebuilt at a time.
_BATCH = 1 << 20


@dataclass(frozen=True)
class UnpackResult(Assembled):
    """A model whose tensors are dense again.

    Attributes:
        names: of these tensors.
    """

    names: list[str]


def unpack(model: Model | ModelProto | bytes | str | Path) -> UnpackResult:
    """Give back the model that was packed, with its zeros; to the bit, if it was packed exactly.

    Args:
        model: a path, the bytes of a model, or a ModelProto; it is never changed.

    Raises:
        SippError: the model was not packed by onnx-sipp, or was changed since so that its tensors
            cannot be rebuilt.
    """
    source = Model.load(model)
    record = read_record(source.proto)
    assembly = Assembly(source)
    for home, values in _rebuilt(source, record):
        holder = _holder(home)
        if values.dtype != numpy_dtype(holder) or values.shape != tuple(holder.dims):
            raise SippError(
                f"the packed tensor {home.name!r} was {numpy_dtype(holder)}{list(holder.dims)}, "
                f"but is rebuilt as {values.dtype}{list(values.shape)}; the file was changed"
            )
        assembly.fill(holder, values, external=is_external(holder))
    _rewrite(assembly.proto, record)
    return UnpackResult(assembly, [home.name for home in record.homes])


def _rebuilt(source: Model, record: Record) -> Iterator[tuple[Home, NDArray[Any]]]:
    """The tensors, each by the operators that the file itself has for it.

    Raises:
        SippError: these are not there any more, or do not work.
    """
    graph = source.proto.graph
    makers = {name: node for node in graph.node for name in node.output if name}
    own = {one.name for one in graph.initializer}
    for homes in _batches(record.homes):
        names = [home.name for home in homes]
        nodes, constants = _chain(names, makers, own)
        tensors = [source.sites.with_payload(name) for name in constants]
        yield from zip(homes, rebuilt(names, nodes, tensors, source.proto), strict=True)


def _batches(homes: Sequence[Home]) -> Iterator[list[Home]]:
    """Tensors to rebuild at a time: many small ones, which may come out of one chain."""
    batch: list[Home] = []
    size = 0
    for home in homes:
        elements = prod(_holder(home).dims)
        if batch and size + elements > _BATCH:
            yield batch
            batch, size = [], 0
        batch.append(home)
        size += elements
    if batch:
        yield batch


def _chain(
    names: Sequence[str], makers: dict[str, NodeProto], own: set[str]
) -> tuple[list[NodeProto], list[str]]:
    """Nodes that make tensors, in topological order, and the constants that they read."""
    done: dict[int, NodeProto] = {}
    open_ones: set[int] = set()  # whose inputs are looked for
    constants: dict[str, None] = {}
    pending = list(names)
    while pending:
        wanted = pending[-1]
        if wanted in own:
            constants[wanted] = None
            pending.pop()
            continue
        if wanted not in makers:
            raise SippError(
                f"the packed tensors {', '.join(names)} cannot be rebuilt: {wanted!r} is missing; "
                "the file was changed after it was packed"
            )
        node = makers[wanted]
        if id(node) in open_ones or id(node) in done:  # all that it reads is there by now
            done[id(node)] = node
            open_ones.discard(id(node))
            pending.pop()
            continue
        open_ones.add(id(node))
        if any(id(makers.get(name)) in open_ones for name in node.input if name not in own):
            raise SippError(f"the graph goes round in a circle, at {wanted!r}; the file is damaged")
        pending += node.input
    return list(done.values()), list(constants)


def _rewrite(proto: ModelProto, record: Record) -> None:
    """Put the tensors back to where they were, in place of what rebuilt them."""
    names = {home.name for home in record.homes}
    graph = proto.graph
    nodes = [
        node
        for node in graph.node
        if node.output[0] not in names and not node.output[0].startswith(record.prefix)
    ]
    initializers = [one for one in graph.initializer if not one.name.startswith(record.prefix)]
    for home in sorted(record.homes, key=lambda home: home.index):
        if isinstance(home.holder, TensorProto):
            initializers.insert(home.index, home.holder)
        else:
            nodes.insert(home.index, home.holder)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    remove_record(proto)


def _holder(home: Home) -> TensorProto:
    holder = home.holder if isinstance(home.holder, TensorProto) else holder_of(home.holder)
    assert isinstance(holder, TensorProto)
    return holder
