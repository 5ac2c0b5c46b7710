"""The first half of lowering: one list of nodes, and all stored constants under a name each."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnx import NodeProto

from onnx_sipp.graph.kinds import known_as, node_labels
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import Label
from onnx_sipp.graph.walk import Holder, holder_of

__all__ = ["Flat", "Twin", "flatten"]


@dataclass(frozen=True)
class Twin:
    """A constant of the lowered graph that is stored in the original model.

    Attributes:
        site: where.
        name: of the constant in the original, for people.
        kind: what holds it there, for people: ``"initializer"``, ``"Constant node"``.
    """

    site: int
    name: str
    kind: str


@dataclass
class Flat:
    """The graph as one list of nodes; operators are still those of the original.

    Attributes:
        model: the original.
        nodes: with their labels; constants are no nodes, they are twins.
        twins: stored constants by their names in the lowered graph. Several may have one site.
    """

    model: Model
    nodes: list[tuple[NodeProto, Label]] = field(default_factory=list)
    twins: dict[str, Twin] = field(default_factory=dict)

    def keep(self, name: str, holder: Holder, kind: str, known_as: str = "") -> None:
        """Make a stored constant of the original, wherever it stands, one of the lowered graph.

        Args:
            name: that it gets in the lowered graph.
            holder: its elements, a message of ``model`` itself.
            kind: what holds it, for people.
            known_as: its name in the original, if that is another.
        """
        self.twins[name] = Twin(self.model.site_of(holder), known_as or name, kind)


def flatten(model: Model) -> Flat:
    """List the nodes and constants of the main graph.

    Args:
        model: the original; is not changed.
    """
    graph = model.proto.graph
    flat = Flat(model)
    for tensor in graph.initializer:
        flat.keep(tensor.name, tensor, model.route(tensor.name))
    for node, label in zip(graph.node, node_labels(graph.node), strict=True):
        holder = holder_of(node)
        if holder is None:
            flat.nodes.append((node, Label(label, known_as(node))))
        else:
            flat.keep(node.output[0], holder, "Constant node")
    return flat
