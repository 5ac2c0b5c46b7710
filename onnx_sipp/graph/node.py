"""What the builders of layers see of a node, and what they return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx import GraphProto, NodeProto, TensorProto, helper

from onnx_sipp.graph.views import MatrixView
from onnx_sipp.unfolding import Unfolding

__all__ = ["Constants", "LayerParts", "NotPrunable", "attributes"]


class NotPrunable(Exception):  # noqa: N818 - a finding, not a failure
    """A node multiplies a constant but is left alone; the text is the reason, for people."""

    def __init__(self, reason: str, parameters: int = 0) -> None:
        super().__init__(reason)
        self.parameters = parameters


@dataclass(frozen=True)
class LayerParts:
    """What a family of operators knows of one layer; see `layers.Layer` for the fields."""

    weight: str
    view: MatrixView
    activation: str
    unfolding: Unfolding
    bias: str | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Constants:
    """Constants of a graph by name.

    Attributes:
        stored: tensors whose payload lies in the file.
        computed: for each tensor that nodes compute from constants alone, the operators on the way
            from the stored constant, for people: ``"Reshape"``, ``"Slice, Concat"``.
    """

    stored: Mapping[str, TensorProto]
    computed: Mapping[str, str]

    @classmethod
    def of(cls, graph: GraphProto, stored: Mapping[str, TensorProto]) -> Constants:
        """Find what nodes compute from stored constants alone, whatever the order of the nodes."""
        computed: dict[str, str] = {}
        pending = [node for node in graph.node if not set(node.output) <= set(stored)]
        while pending:
            later = []
            for node in pending:
                inputs = [name for name in node.input if name]
                if _is_deterministic(node) and all(n in stored or n in computed for n in inputs):
                    way = [computed[name] for name in inputs if name in computed]
                    computed.update(dict.fromkeys(node.output, ", ".join([*way, node.op_type])))
                else:
                    later.append(node)
            if len(later) == len(pending):
                break
            pending = later
        return cls(stored, computed)

    def __contains__(self, name: str) -> bool:
        return name in self.stored or name in self.computed

    def weight(self, name: str) -> TensorProto:
        """The stored tensor behind a weight operand.

        Raises:
            NotPrunable: it is computed by nodes.
        """
        if name in self.computed:
            raise NotPrunable(
                f"its weight {name!r} is computed from constants ({self.computed[name]}); "
                "only weights stored as they are used can be pruned yet"
            )
        return self.stored[name]


def attributes(node: NodeProto) -> dict[str, Any]:
    """Attributes of a node as Python values; strings decoded."""
    result = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        result[attribute.name] = (
            value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        )
    return result


def _is_deterministic(node: NodeProto) -> bool:
    random = node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial")
    return not random and not any(a.HasField("g") or a.graphs for a in node.attribute)
