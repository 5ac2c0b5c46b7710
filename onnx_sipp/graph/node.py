"""What the builders of layers see of a node, and what they return."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx import GraphProto, NodeProto, SparseTensorProto, TensorProto, helper

from onnx_sipp.graph.views import MatrixView
from onnx_sipp.unfolding.base import Unfolding

__all__ = ["Constants", "Label", "LayerParts", "NotPrunable", "attributes", "is_deterministic"]


class NotPrunable(Exception):  # noqa: N818 - a finding, not a failure
    """A node multiplies a constant but is left alone; the text is the reason, for people."""

    def __init__(self, reason: str, parameters: int = 0) -> None:
        super().__init__(reason)
        self.parameters = parameters


@dataclass(frozen=True)
class Label:
    """What a node is called.

    Attributes:
        name: unique in the model: the node's own name where that is unique, else made from its
            operator and place; with the path of subgraphs it lies in.
        op_type: the operator for people, with its domain if that is not ONNX's own.
        node: name of the node of the original that it is a part of, "" if it is that node.
    """

    name: str
    op_type: str
    node: str = ""

    @property
    def reader(self) -> str:
        """Name of the node of the original."""
        return self.node or self.name


@dataclass(frozen=True)
class LayerParts:
    """What a family of operators knows of one layer; see `layers.Layer` for the fields."""

    weight: str
    view: MatrixView
    activation: str
    unfolding: Unfolding
    bias: str | None = None
    scale: float = 1.0
    neuron_axis: int | None = None


@dataclass(frozen=True)
class Constants:
    """Constants of a graph by name.

    Attributes:
        stored: tensors whose payload lies in the file.
        computed: for each tensor that nodes compute from constants alone, the operators on the way
            from the stored constants, each once: ``("Slice", "Concat")``.
        sparse: tensors stored as ``sparse_initializer``.
    """

    stored: Mapping[str, TensorProto]
    computed: Mapping[str, tuple[str, ...]]
    sparse: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(
        cls, graph: GraphProto, stored: Mapping[str, TensorProto], outer: Constants | None = None
    ) -> Constants:
        """Find what nodes compute from stored constants alone, whatever the order of the nodes.

        Args:
            graph: to look at.
            stored: its stored constants, and those it sees from outside.
            outer: constants of the graph around it.
        """
        return cls.within(graph.node, graph.sparse_initializer, stored, outer)

    @classmethod
    def within(
        cls,
        nodes: Sequence[NodeProto],
        sparse_tensors: Iterable[SparseTensorProto],
        stored: Mapping[str, TensorProto],
        outer: Constants | None = None,
    ) -> Constants:
        """The same for a list of nodes."""
        computed = dict(outer.computed) if outer else {}
        sparse = frozenset(tensor.values.name for tensor in sparse_tensors)
        sparse |= outer.sparse if outer else frozenset()
        waiting: dict[str, list[int]] = defaultdict(list)
        missing: dict[int, int] = {}
        for index, node in enumerate(nodes):
            if is_deterministic(node):
                known = (stored, computed, sparse)
                needs = {n for n in node.input if n and not any(n in names for names in known)}
                missing[index] = len(needs)
                for name in needs:
                    waiting[name].append(index)
        ready = [index for index, needs in missing.items() if not needs]
        while ready:
            node = nodes[ready.pop()]
            before = (op for name in node.input for op in computed.get(name, ()))
            way = tuple(dict.fromkeys([*before, node.op_type]))
            for name in node.output:
                if name and name not in stored:
                    computed[name] = way
                    for reader in waiting[name]:
                        missing[reader] -= 1
                    ready.extend(reader for reader in waiting.pop(name) if not missing[reader])
        return cls(stored, computed, sparse)

    def __contains__(self, name: str) -> bool:
        return name in self.stored or name in self.computed or name in self.sparse

    def weight(self, name: str) -> TensorProto:
        """The stored tensor behind a weight operand.

        Raises:
            NotPrunable: it is computed by nodes, or stored as a sparse tensor.
        """
        if name in self.computed:
            raise NotPrunable(
                f"its weight {name!r} is computed from constants "
                f"({', '.join(self.computed[name])}); "
                "only weights stored as they are used can be pruned yet"
            )
        if name in self.sparse:
            raise NotPrunable(f"its weight {name!r} is a sparse tensor already")
        return self.stored[name]


def attributes(node: NodeProto) -> dict[str, Any]:
    """Attributes of a node as Python values; strings decoded.

    Raises:
        ValueError: an attribute has no type, or a reference in place of a value.
    """
    result = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if value is None:
            raise ValueError(f"its attribute {attribute.name!r} has no value or no type")
        result[attribute.name] = (
            value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        )
    return result


def is_random(node: NodeProto) -> bool:
    """Whether a node draws numbers, each time others."""
    trains = node.op_type == "Dropout" and len(node.input) > 2
    return _draws(node) or trains


def is_deterministic(node: NodeProto) -> bool:
    """Whether a node gives the same for the same inputs; those with subgraphs do not count."""
    return not _draws(node) and not any(a.HasField("g") or a.graphs for a in node.attribute)


def _draws(node: NodeProto) -> bool:
    return node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial")
