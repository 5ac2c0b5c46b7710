"""The constants of a lowered graph, and the stored elements that its weights are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_sipp.graph.lowering.evaluation import Evaluator
from onnx_sipp.graph.lowering.flat import Flat, Twin
from onnx_sipp.graph.lowering.grid import Grid, spread
from onnx_sipp.graph.lowering.trace import Traced, Tracer
from onnx_sipp.graph.lowering.virtual import Numbering, Virtual
from onnx_sipp.graph.node import Constants, NotPrunable
from onnx_sipp.graph.sites import Sites
from onnx_sipp.graph.tensors import is_float, numpy_dtype
from onnx_sipp.graph.walk import Holder

__all__ = ["LoweredConstants"]

Array = NDArray[Any]


class LoweredConstants:
    """Constants of the flat graph, and those that lowering adds.

    Args:
        flat: the graph to lower.

    Attributes:
        flat: its constants: what is stored, and what nodes compute from that alone.
        twins: its stored constants by name; they are read by no route.
        virtual: added weights, by name.
        fixed: added constants that are no weights, by name.
        numbering: of all stored elements.
        evaluator: computes them.
        tracer: follows them back to what is stored.
    """

    def __init__(self, flat: Flat) -> None:
        self._sites = flat.model.sites
        self.twins = dict(flat.twins)
        self.virtual: dict[str, Virtual] = {}
        self.fixed: dict[str, TensorProto] = {}
        self.numbering = Numbering([_size(holder) for holder in self._sites.holders])
        stored = {name: self._tensor(name) for name in flat.twins}
        sparse = flat.model.proto.graph.sparse_initializer
        self.flat = Constants.within([node for node, _ in flat.nodes], sparse, stored)
        origin = _Stored(self._sites, self.twins, self.fixed, stored, self.numbering)
        self.evaluator = Evaluator(flat.opsets, origin.read)
        self.tracer = Tracer(self.evaluator, origin.traced)
        for node, _ in flat.nodes:
            if self.makes(node):
                self.evaluator.add(node)

    def __contains__(self, name: str) -> bool:
        return name in self.flat or name in self.fixed

    def makes(self, node: NodeProto) -> bool:
        """Whether a node computes from constants alone."""
        names = [name for name in node.output if name]
        return bool(names) and all(name in self.flat for name in names)

    def is_weight(self, name: str) -> bool:
        """Whether a constant stands for stored elements one to one."""
        return name in self.twins or name in self.virtual

    def facts(self, name: str) -> tuple[tuple[int, ...], int]:
        """Shape and element type of such a constant."""
        if name in self.virtual:
            made = self.virtual[name]
            return made.ids.shape, helper.np_dtype_to_tensor_dtype(made.dtype)
        tensor = self.flat.stored[name]
        return tuple(tensor.dims), tensor.data_type

    def weighed(
        self, operand: str, scale: Array | None, zero_point: Array | None, axis: int
    ) -> Traced:
        """Trace an operand to elements that have real values.

        Args:
            operand: name of a constant.
            scale: see `Builder.weight`, as for the others.
            zero_point: of integers.
            axis: that several scales or zero points belong to.

        Raises:
            NotPrunable: its elements have none, or are not known one by one.
        """
        if operand in self.flat.sparse:
            raise NotPrunable(f"its weight {operand!r} is a sparse tensor already")
        try:
            traced = self.tracer.trace(operand)
        except NotPrunable as reason:
            ways = ", ".join(self.flat.computed.get(operand, ()))
            raise NotPrunable(
                f"its weight {operand!r} is computed from constants ({ways}): {reason}",
                reason.parameters,
            ) from reason
        if traced.levels:
            raise NotPrunable(f"its weight {operand!r} is quantised in the graph", traced.ids.size)
        if scale is None and zero_point is None:
            if not is_float(traced.dtype):
                raise NotPrunable(f"its weight {operand!r} is not floating point", traced.ids.size)
            return traced
        if is_float(traced.dtype):
            raise NotPrunable(f"its weight {operand!r} should be integers", traced.ids.size)
        factor = np.ones((), np.float32) if scale is None else scale
        zero = np.zeros((), np.int32) if zero_point is None else zero_point.astype(np.int32)
        shape = traced.ids.shape
        grid = Grid(
            spread(factor, shape, axis), spread(zero, shape, axis), traced.dtype, stored=True
        )
        return Traced(traced.ids, factor.dtype, grid)

    def made_of(
        self, traced: Traced, operand: str, index: NDArray[np.integer] | None, owner: str
    ) -> Virtual:
        """A weight made of the elements of an operand.

        Args:
            traced: the operand, as `weighed` gives it.
            operand: its name.
            index: places in the flattened operand, in the shape of the weight; None for all of it.
            owner: label of the node that the weight is made for.

        Raises:
            NotPrunable: its elements are not stored ones, each once.
        """
        ids, grid = traced.ids, traced.grid
        if index is not None:
            places = np.asarray(index, np.int64)
            ids = ids.ravel()[places]
            grid = grid.mapped(lambda values: values.ravel()[places]) if grid else None
        self._refuse_repeats(operand, ids)
        way = self.flat.computed.get(operand, ())
        return Virtual(ids, traced.dtype, grid, way, owner, operand)

    def _refuse_repeats(self, operand: str, ids: NDArray[np.int64]) -> None:
        ways = ", ".join(self.flat.computed.get(operand, ()))
        if ids.size and int(ids.min()) == 0:
            raise NotPrunable(
                f"its weight {operand!r} ({ways}) has elements that are not stored", ids.size
            )
        if np.unique(ids).size < ids.size:
            raise NotPrunable(
                f"its weight {operand!r} ({ways}) uses a stored element more than once", ids.size
            )

    def _tensor(self, name: str) -> TensorProto:
        """A twin as a TensorProto of the original, or one made of a Constant's plain numbers."""
        holder = self._sites.holders[self.twins[name].site]
        if isinstance(holder, TensorProto):
            return holder
        return numpy_helper.from_array(self._sites.read(self.twins[name].site), name)


@dataclass(frozen=True)
class _Stored:
    """The stored constants, as an evaluator and a tracer ask for them; they know nothing of these.

    Attributes:
        sites: of the original.
        twins: see `LoweredConstants`, as for the others.
        fixed: added constants.
        tensors: twins as tensors.
        numbering: of all stored elements.
    """

    sites: Sites
    twins: Mapping[str, Twin]
    fixed: Mapping[str, TensorProto]
    tensors: Mapping[str, TensorProto]
    numbering: Numbering

    def traced(self, name: str) -> Traced | None:
        """What a tracer begins with; None if it is no twin."""
        if name not in self.twins:
            return None
        tensor = self.tensors[name]
        ids = self.numbering.of(self.twins[name].site).reshape(tuple(tensor.dims))
        return Traced(ids, numpy_dtype(tensor))

    def read(self, name: str) -> Array:
        """Elements of a constant.

        Raises:
            NotPrunable: it is not stored.
        """
        if name in self.fixed:
            return numpy_helper.to_array(self.fixed[name])
        if name not in self.twins:
            raise NotPrunable(f"{name!r} cannot be evaluated")
        return self.sites.read(self.twins[name].site)


def _size(holder: Holder) -> int:
    if isinstance(holder, AttributeProto):
        return max(1, len(holder.floats) + len(holder.ints))
    return prod(max(0, dim) for dim in holder.dims)
