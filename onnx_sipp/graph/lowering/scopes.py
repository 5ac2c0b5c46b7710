"""What names and attribute references mean inside the graphs of a model."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto

__all__ = ["Names", "Scope", "defined_in"]


class Names:
    """Gives out names that no other tensor of the lowered graph has.

    Args:
        taken: that must not be given out.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def fresh(self, hint: str) -> str:
        """The hint itself, or made from it if it is taken."""
        name, count = hint, 0
        while name in self._taken:
            count += 1
            name = f"{hint}/{count}"
        self._taken.add(name)
        return name


@dataclass(frozen=True)
class Scope:
    """The inside of a graph or of a function that is called.

    Attributes:
        path: of what is inside, for people: ``"If#3 > then_branch > "``, ``""`` in the main graph.
        names: of the lowered graph, by those of the original.
        attributes: what references in the body of a function stand for.
        calls: the functions that are being called, outermost first.
    """

    path: str
    names: ChainMap[str, str] = field(default_factory=ChainMap)
    attributes: Mapping[str, AttributeProto] = field(default_factory=dict)
    calls: tuple[str, ...] = ()

    def name(self, original: str) -> str:
        """The name of a tensor in the lowered graph."""
        return self.names.get(original, original) if original else ""

    def inner(self, path: str) -> Scope:
        """The inside of a subgraph, which sees what is outside."""
        return Scope(path, self.names.new_child(), self.attributes, self.calls)

    def called(self, function: FunctionProto, node: NodeProto, path: str) -> Scope:
        """The inside of a function, which sees nothing but its inputs and attributes."""
        given = dict(zip(function.input, map(self.name, node.input), strict=False))
        names = {name: given.get(name, "") for name in function.input}
        attributes = {default.name: default for default in function.attribute_proto}
        for attribute in node.attribute:
            value = self.value(attribute)
            if value is not None:
                attributes[attribute.name] = value
        return Scope(path, ChainMap(names), attributes, (*self.calls, node.op_type))

    def value(self, attribute: AttributeProto) -> AttributeProto | None:
        """What an attribute stands for; None if for one that the caller left out."""
        if not attribute.ref_attr_name:
            return attribute
        return self.attributes.get(attribute.ref_attr_name)

    def define(self, names: Iterable[str], pool: Names) -> None:
        """Give the tensors that are made inside names of their own, unless they have one."""
        own = self.names.maps[0]
        for name in names:
            if name and name not in own:
                own[name] = pool.fresh(name)


def defined_in(graph: GraphProto) -> Iterable[str]:
    """Names of the tensors that a graph takes, stores and makes."""
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    yield from (name for node in graph.node for name in node.output)
