"""Constants as a runtime gets them: mapped, lent from memory, or inside a message."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, TensorProto

from onnx_sipp.graph.runnable import lent_reference
from onnx_sipp.graph.sites import Sites
from onnx_sipp.graph.tensors import is_external, numpy_dtype, payload_bytes

__all__ = ["hand_over", "hand_over_all", "mapped"]

# Constants from this size on are handed to a runtime without a copy.
MAPPED_BYTES = 1 << 20


def mapped(sites: Sites, name: str) -> NDArray[Any] | None:
    """A large external constant as a runtime can take it, mapped; None for all others.

    Args:
        sites: of the model.
        name: of a constant of its main graph.
    """
    return _uncopied(sites, name) if is_external(sites.stored[name]) else None


def hand_over(sites: Sites, name: str, graph: GraphProto, lent: dict[str, NDArray[Any]]) -> None:
    """Put a constant, as it is now, into a graph for a runtime: lent if it can be, else inside.

    Args:
        sites: of the model.
        name: of a constant of its main graph.
        graph: gets it.
        lent: gets its elements, if they are lent.
    """
    tensor = sites.stored[name]
    values = None if is_external(tensor) else _uncopied(sites, name)
    if values is None:
        graph.initializer.append(sites.with_payload(name))
    else:
        graph.initializer.append(lent_reference(tensor, name))
        lent[name] = values


def hand_over_all(
    sites: Sites,
    tensors: Iterable[TensorProto],
    graph: GraphProto,
    lent: dict[str, NDArray[Any]],
) -> None:
    """The same for initializers; external data that was not replaced stays where it is."""
    left_inside = {value.name for value in graph.input}  # a feed may replace them
    for tensor in tensors:
        if is_external(tensor) and sites.of(tensor) not in sites.replaced:
            graph.initializer.append(tensor)
        elif tensor.name in left_inside:
            graph.initializer.append(sites.with_payload(tensor.name))
        else:
            hand_over(sites, tensor.name, graph, lent)


def _uncopied(sites: Sites, name: str) -> NDArray[Any] | None:
    """The elements of a constant that is large, and of a type that runtimes know in numpy."""
    tensor = sites.stored[name]
    if payload_bytes(tensor) < MAPPED_BYTES or numpy_dtype(tensor).isbuiltin != 1:
        return None
    return sites.read(sites.named(name))
