"""What a lowering rule works with.

A **rule** is a function of a module of its family and one line in `rules.RULES`::

    def rule(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None

It is called for every node of its operator that has an activation, and returns the nodes that
stand in its place in the lowered graph, or None to leave the node as it is. It raises `NotPrunable`
with a reason for people if the node weighs a constant that cannot be pruned; the node then stays as
it is and is listed as skipped. It must not change the node it is given: copy it.

There are two kinds:

- *decompose*: equivalent plain nodes take the node's place and make its outputs. The Conv, Gemm or
  MatMul among them multiplies ``builder.weight(...)``.
- *probe*: the node stays (it is among the nodes returned, or a copy of it is), reading its own
  constants by its own route, and a plain layer stands beside it whose output nobody reads. It
  multiplies the activation that the node multiplies inside with ``builder.weight(...)``: statistics
  and refit happen there, and what they write reaches the node through its own constants.

Rules are called for nodes inside functions, branches and bodies, too. In a body that stays one,
what they return lies there, and the layers among it are watched from outside: see `taps`.

Which stored elements a virtual weight consists of, and how real values become stored ones, the
builder finds out itself; see `weight`. A Conv, Gemm or MatMul whose weight is stored directly needs
no virtual weight: its constant is a *twin*, a constant of the lowered graph that is written through
to its place in the original file.

Every node of the lowered graph carries a `Label`: by it, it is reported, excluded, and known as a
reader of constants. Nodes that a rule returns get the label of the node they stand for, unless they
were given one by `Builder.named`. A rule that makes several layers of one node must name them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from onnx_sipp.graph.kinds import Skipped, known_as, node_kind
from onnx_sipp.graph.lowering.constants import LoweredConstants
from onnx_sipp.graph.lowering.flat import Flat
from onnx_sipp.graph.node import Label, NotPrunable

__all__ = ["Builder", "Rule", "Watching"]

Array = NDArray[Any]

# How layers inside a Loop or the like are watched: their inputs stacked, which must then have the
# same shape in every iteration; collected in a state of the loop; or not at all.
Watching = Literal["stacked", "collected", "not"]


class Rule(Protocol):
    """See the module's text."""

    def __call__(self, node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
        """Return the nodes that stand in the place of a node, None to leave it as it is."""
        ...


class Builder:
    """Collects the nodes and constants of a lowered graph.

    Args:
        flat: the graph to lower.
        rules: by domain and operator.
        watched: how Loops and the like are watched, by label; see `watching`.

    Attributes:
        model: the original, to read only.
        opsets: that the lowered graph's operators are from.
        constants: of the lowered graph.
    """

    def __init__(
        self,
        flat: Flat,
        rules: Mapping[tuple[str, str], Rule],
        watched: Mapping[str, Watching] | None = None,
    ) -> None:
        self.model, self._rules = flat.model, rules
        self._watched = watched or {}
        self.given_up: list[tuple[NodeProto, Label]] = []
        self.constants = LoweredConstants(flat)
        self.refused: dict[str, Skipped] = {}
        self.nodes: list[tuple[NodeProto, Label]] = []
        self._given_labels: dict[int, tuple[NodeProto, Label]] = {}
        self._taps: dict[int, NodeProto] = {}
        self.notes: list[str] = []
        self._label = Label("", "")
        self._producer = {name: node for node, _ in flat.nodes for name in node.output if name}
        self._names = flat.names
        self.opsets = flat.opsets

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators in the lowered graph."""
        imports = self.model.proto.opset_import
        return max((i.version for i in imports if i.domain in ("", "ai.onnx")), default=1)

    # --- what rules ask ------------------------------------------------------------------------

    @property
    def label(self) -> Label:
        """Of the node that is being lowered."""
        return self._label

    @property
    def watching(self) -> Watching:
        """How the node that is being lowered, or one that it lies in, is watched."""
        reader = self._label.reader
        found = (
            how
            for label, how in self._watched.items()
            if reader == label or reader.startswith(f"{label} > ")
        )
        return next(found, "stacked")

    def give_up(self, nodes: Sequence[NodeProto], path: str) -> None:
        """Take nodes of a subgraph for some that no sample reaches."""
        self.given_up.extend((node, Label(path + node.name, known_as(node))) for node in nodes)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is stored, or computed from stored ones alone."""
        return name in self.constants

    def value(self, name: str) -> Array:
        """Elements of a constant as the node sees them.

        Raises:
            NotPrunable: it is computed by operators that cannot be evaluated here.
        """
        return self.constants.evaluator.value(name)

    def weight(
        self,
        operand: str,
        index: NDArray[np.integer] | None = None,
        *,
        scale: Array | None = None,
        zero_point: Array | None = None,
        axis: int = 1,
    ) -> str:
        """A new stored constant of the lowered graph with the real values of a constant operand.

        What is written to it is written to the stored elements behind the operand, in their own
        type: whatever re-arranging operators, Cast and DequantizeLinear stand between.

        Args:
            operand: name of a constant that the node being lowered reads.
            index: places in the flattened operand, in the shape that the weight shall have (each
                place once at most); None for all of the operand in its own shape. A virtual weight
                may be made of a part of an operand, and several of its parts.
            scale: for an operand of integers that the node itself dequantises: one, or one per
                index of ``axis`` of the operand. Without it, with a ``zero_point``, it is 1.
            zero_point: of such an operand, likewise.
            axis: of the operand, that several scales or zero points belong to.

        Returns:
            The name of the new constant: floating point, of the type the operand (its Cast, its
            scale) has.

        Raises:
            NotPrunable: its elements are not stored ones, each once, or are not floating point.
        """
        traced = self.constants.weighed(operand, scale, zero_point, axis)
        made = self.constants.made_of(traced, operand, index, self._label.reader)
        name = self.fresh(operand)
        self.constants.virtual[name] = made
        return name

    def constant(self, values: Array, hint: str = "constant") -> str:
        """A new constant of the lowered graph that is no weight: a shape, an axis, a factor."""
        name = self.fresh(hint)
        self.constants.fixed[name] = numpy_helper.from_array(np.array(values, order="C"), name)
        return name

    def producer(self, name: str) -> NodeProto | None:
        """The node of the original that makes a tensor, None if it is an input or a constant."""
        return self._producer.get(name)

    def enter(self, nodes: Sequence[NodeProto]) -> None:
        """Make the nodes of a subgraph that is being lowered known to `producer`."""
        self._producer.update((name, node) for node in nodes for name in node.output if name)

    def fresh(self, hint: str) -> str:
        """A name for a tensor that no other tensor of the lowered graph has."""
        return self._names.fresh(hint)

    def node(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str] | int = 1,
        **attributes: Any,
    ) -> NodeProto:
        """A new node of ONNX's own domain; ``outputs`` names them, or says how many fresh ones."""
        if isinstance(outputs, int):
            outputs = [self.fresh(f"{self._label.name}/{op_type}") for _ in range(outputs)]
        return helper.make_node(op_type, inputs, outputs, **attributes)

    def named(self, node: NodeProto, part: str) -> NodeProto:
        """Label a node that a rule will return as a layer of its own: ``lstm1 (R)``."""
        label = replace(self._label, name=f"{self._label.name} ({part})", node=self._label.reader)
        return self.labelled(node, label)

    def labelled(self, node: NodeProto, label: Label) -> NodeProto:
        """Label a node that a rule will return and that stands for a node inside a subgraph."""
        self._given_labels[id(node)] = node, label
        return node

    def note(self, text: str) -> None:
        """Tell the user something about the model."""
        self.notes.append(text)

    def tap(self, node: NodeProto) -> NodeProto:
        """Say that a node is a copy that only hands out activations: it reads for nobody."""
        self._taps[id(node)] = node
        return node

    def is_tap(self, node: NodeProto) -> bool:
        """Whether `tap` was said of a node."""
        return id(node) in self._taps

    # --- lowering ------------------------------------------------------------------------------

    @contextmanager
    def at(self, label: Label) -> Iterator[None]:
        """Lower another node for a while: it owns the weights that are made."""
        before, self._label = self._label, label
        yield
        self._label = before

    def lower(self, node: NodeProto, label: Label) -> list[tuple[NodeProto, Label]]:
        """The nodes that stand in the place of a node, with their labels."""
        if self.constants.makes(node):
            return [(node, label)]
        rule = self._rules.get(node_kind(node))
        found: Sequence[NodeProto] | None = None
        if rule is not None:
            with self.at(label):
                try:
                    found = rule(node, self)
                except NotPrunable as reason:
                    self._refuse(label, reason)
                except (TypeError, ValueError, LookupError) as error:
                    self._refuse(label, NotPrunable(f"the node is malformed: {error}"))
        if found is None:
            return [(node, label)]
        return [(made, self._given_labels.get(id(made), (made, label))[1]) for made in found]

    def _refuse(self, label: Label, reason: NotPrunable) -> None:
        self.refused[label.name] = Skipped(
            label.name, label.op_type, reason.parameters, str(reason)
        )
