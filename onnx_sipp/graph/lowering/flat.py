"""A graph as one list of nodes, and its stored constants under a name each."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnx import NodeProto, OperatorSetIdProto

from onnx_sipp.graph.lowering.scopes import Names
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import Label
from onnx_sipp.graph.walk import Holder

__all__ = ["Flat", "Labelled", "Twin"]

Labelled = tuple[NodeProto, Label]


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
        names: gives out names that none of its tensors has, those inside subgraphs included.
        opsets: that its operators are from.
        unseen: nodes of branches that are never taken.
        conditions: by label, what each If that is left in the main graph or in a subgraph decides
            by.
    """

    model: Model
    names: Names
    opsets: list[OperatorSetIdProto]
    nodes: list[Labelled] = field(default_factory=list)
    twins: dict[str, Twin] = field(default_factory=dict)
    unseen: list[Labelled] = field(default_factory=list)
    conditions: dict[str, str] = field(default_factory=dict)

    def keep(self, name: str, holder: Holder, kind: str, known_as: str = "") -> None:
        """Make a stored constant of the original, wherever it stands, one of the lowered graph.

        Args:
            name: that it gets in the lowered graph.
            holder: its elements, a message of ``model`` itself.
            kind: what holds it, for people.
            known_as: its name in the original, if that is another.
        """
        self.twins[name] = Twin(self.model.sites.of(holder), known_as or name, kind)
