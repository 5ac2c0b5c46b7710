"""What the rules of operators know of a graph, and what they note down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_sipp.channels.units import FIXED, Ids, Units
from onnx_sipp.graph.node import Constants

__all__ = ["Axes", "Contraction", "Edit", "Product", "Stuck", "Trace", "called"]

Axes = list[Ids]
Array = NDArray[Any]
# Gives for units whether each is kept.
Keeps = Callable[[Ids], NDArray[np.bool_]]


class Stuck(Exception):  # noqa: N818 - a finding, not a failure
    """Nothing that runs through a node can be cut; the text is the reason, for people."""


@dataclass(frozen=True)
class Contraction:
    """A node that sums over channels, each with weights of its own.

    Attributes:
        node: its place in the graph.
        channels: ``[group, channels]``, the units that it sums over.
    """

    node: int
    channels: Ids


@dataclass(frozen=True)
class Product:
    """Multiply-adds of a node: a number times the lengths of some axes."""

    node: int
    factor: float
    axes: tuple[Ids, ...]


@dataclass(frozen=True)
class Edit:
    """A constant operand or an attribute that says how many channels there are.

    Attributes:
        node: its place in the graph.
        place: number of the operand, or name of the attribute.
        value: gives the new elements, told which units are kept.
    """

    node: int
    place: int | str
    value: Callable[[Keeps], Array]


@dataclass
class Trace:
    """Units along every axis of every tensor of the main graph.

    Attributes:
        units: all of them.
        constants: of the graph.
        shapes: of all tensors, for one sample.
        values: small tensors, for that sample.
        opset: of ONNX's own operators.
        axes: by tensor; what is missing is fixed.
        outside: units that the model is given.
        contractions: found so far.
        products: found so far.
        edits: found so far.
    """

    units: Units
    constants: Constants
    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, Array]
    opset: int
    axes: dict[str, Axes] = field(default_factory=dict)
    outside: list[Ids] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)

    def of(self, name: str) -> Axes:
        """Units along the axes of a tensor.

        Raises:
            Stuck: it is no tensor, or its shape is not known.
        """
        if name not in self.axes:
            if name not in self.shapes:
                raise Stuck(f"the shape of {name!r} is not known")
            self.axes[name] = [np.full(size, FIXED) for size in self.shapes[name]]
        return self.axes[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor.

        Raises:
            Stuck: it is not known.
        """
        if name not in self.shapes:
            raise Stuck(f"the shape of {name!r} is not known")
        return self.shapes[name]

    def value(self, name: str) -> Array:
        """Elements of a constant that tells a shape or a place.

        Raises:
            Stuck: it is not known before the model runs.
        """
        if name not in self.constants or name not in self.values:
            raise Stuck(f"its operand {name!r} is calculated while the model runs")
        return self.values[name]

    def is_cut(self, ids: Ids) -> bool:
        """Whether an axis may become shorter, as far as is known by now."""
        return any(not self.units.reason(number) for number in np.unique(ids).tolist())


def called(node: NodeProto) -> str:
    """A node, for people."""
    return f"{node.op_type} {node.name or (node.output[0] if node.output else '')!r}"
