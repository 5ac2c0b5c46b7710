"""Coupled groups: units that stand in the same places of the same tensors, one for another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_sipp.channels.trace import Trace
from onnx_sipp.channels.units import FIXED, Ids
from onnx_sipp.graph.kinds import node_kind
from onnx_sipp.graph.model import Model

__all__ = ["Group", "Volumes", "find_groups"]

_CONVOLUTIONS = ("Conv", "ConvTranspose", "FusedConv")
# A convolution with another number of channels is slower than the dense one.
_CONV_GRID = 4


@dataclass(frozen=True)
class Group:
    """Channels, hidden units or heads of which some may be cut.

    Attributes:
        name: for people: the nodes that make them.
        makers: places of the nodes that make them.
        readers: numbers of the contractions that sum over them.
        units: by number, in the order of their places.
        size: places that each of them takes in the widest tensor: 1 for a channel, the width of a
            head for a head.
        width: channels of a convolution that each of them is, 0 if none makes or reads them.
        alone: whether no convolution makes other channels beside them.
        reason: why none can be cut, "" if some can.
    """

    name: str
    makers: tuple[int, ...]
    readers: tuple[int, ...]
    units: Ids
    size: int
    width: int
    alone: bool
    reason: str

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.units.size)

    def counts(self, align: int | None) -> list[int]:
        """How many may be kept, most first: all, and what the runtime's kernels like below that.

        Args:
            align: multiples of this only; None for 16, and for 8 or 4 where there are few.
        """
        channels = self.count * max(1, self.width)
        grid = align or (16 if channels >= 64 else 8 if channels >= 32 else _CONV_GRID)
        step = grid // gcd(grid, self.width) if self.width else 1 if self.size > 1 else grid
        # Beside other channels, so many of them go that the sum stays where it was on the grid.
        first = (self.count - 1) // step * step if self.alone else self.count - step
        return [self.count, *range(first, 0, -step)]


def find_groups(model: Model, trace: Trace, names: Sequence[str]) -> list[Group]:
    """Sort units into groups, in the order of the nodes that read them.

    Args:
        model: that was traced.
        trace: of it.
        names: of its nodes, for people.
    """
    roots = trace.units.roots
    occurs: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
    for name in model.stored:
        for axis, ids in enumerate(trace.axes.get(name, [])):
            found, counts = np.unique(roots(ids), return_counts=True)
            for root, count in zip(found.tolist(), counts.tolist(), strict=True):
                occurs[root].append((name, axis, count))
    weighed = _in_order([roots(ids) for product in trace.products for ids in product.axes])
    readers: dict[int, set[int]] = defaultdict(set)
    for number, contraction in enumerate(trace.contractions):
        for root in np.unique(roots(contraction.channels)).tolist():
            readers[root].add(number)
    makers = _makers(model, trace)
    outside = set(_in_order([roots(ids) for ids in trace.outside]))
    members: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for root in weighed:
        known = readers[root] and root not in outside
        if root != FIXED and occurs[root] and (makers[root] or known):
            key = tuple(occurs[root]), tuple(sorted(readers[root])), trace.units.reason(root)
            members[key].append(root)
    return [
        _group(model, trace, names, np.array(units), sorted(readers[units[0]]), occurs[units[0]],
               sorted(makers[units[0]]))
        for units in members.values()
    ]  # fmt: skip


def _in_order(axes: Sequence[Ids]) -> list[int]:
    return list(dict.fromkeys(np.concatenate([*axes, np.zeros(1, np.int64)]).tolist()))


def _makers(model: Model, trace: Trace) -> dict[int, set[int]]:
    """By unit, the nodes whose weights make it."""
    found: dict[int, set[int]] = defaultdict(set)
    for product in trace.products:
        node = model.proto.graph.node[product.node]
        read = trace.units.roots(_summed(trace, product.node))
        for ids in trace.axes.get(node.output[0], []):
            for root in set(np.unique(trace.units.roots(ids)).tolist()) - set(read.tolist()):
                found[root].add(product.node)
    return found


def _summed(trace: Trace, node: int) -> Ids:
    found = [c.channels.ravel() for c in trace.contractions if c.node == node]
    return np.concatenate([np.zeros(0, np.int64), *found])


def _group(
    model: Model,
    trace: Trace,
    names: Sequence[str],
    units: Ids,
    readers: Sequence[int],
    occurs: Sequence[tuple[str, int, int]],
    makers: Sequence[int],
) -> Group:
    nodes = model.proto.graph.node
    listed = [names[place] for place in makers or [trace.contractions[n].node for n in readers]]
    more = f" and {len(listed) - 1} more" if len(listed) > 1 else ""
    reason = trace.units.reason(int(units[0]))
    if not reason and units.size < 2:
        reason = "there is one only"
    made = [trace.of(nodes[place].output[0])[1] for place in makers if _convolves(nodes[place])]
    read = [trace.contractions[number] for number in readers]
    summed = [found.channels for found in read if _convolves(nodes[found.node])]
    widths = [int((trace.units.roots(ids) == units[0]).sum()) for ids in (*made, *summed)]
    if not reason and not readers:
        reason = "no weights sum over them, so none can make up for those cut"
    return Group(
        name=(listed[0] if listed else occurs[0][0]) + more,
        makers=tuple(makers),
        readers=tuple(readers),
        units=units,
        size=max(count for _, _, count in occurs),
        width=max(widths, default=0),
        alone=all(bool(np.isin(trace.units.roots(ids), units).all()) for ids in made),
        reason=reason,
    )


def _convolves(node: NodeProto) -> bool:
    return node_kind(node)[1] in _CONVOLUTIONS


class Volumes:
    """Multiply-adds and parameters of a model, by how many units each group keeps.

    Args:
        model: that was traced.
        trace: of it.
        groups: that may lose units.
    """

    def __init__(self, model: Model, trace: Trace, groups: Sequence[Group]) -> None:
        owner = {int(u): number for number, group in enumerate(groups) for u in group.units}
        sizes = np.array([group.count for group in groups], np.float64)

        def line(ids: Ids) -> tuple[float, NDArray[np.float64]]:
            held = np.zeros(len(groups))
            roots, counts = np.unique(trace.units.roots(ids), return_counts=True)
            for root, count in zip(roots.tolist(), counts.tolist(), strict=True):
                if root in owner:
                    held[owner[root]] += count
            return ids.size - float(held.sum()), held / sizes

        self._macs = [(p.factor, [line(ids) for ids in p.axes]) for p in trace.products]
        stored = [trace.axes[name] for name in model.stored if name in trace.axes]
        self._parameters = [(1.0, [line(ids) for ids in axes]) for axes in stored]

    def macs(self, counts: NDArray[np.float64]) -> float:
        """Multiply-adds for one sample."""
        return _sum(self._macs, counts)

    def parameters(self, counts: NDArray[np.float64]) -> float:
        """Elements of all parameters of the main graph."""
        return _sum(self._parameters, counts)


def _sum(
    terms: Sequence[tuple[float, list[tuple[float, NDArray[np.float64]]]]],
    counts: NDArray[np.float64],
) -> float:
    total = 0.0
    for factor, axes in terms:
        for fixed, held in axes:
            factor *= fixed + float(held @ counts)  # noqa: PLW2901 - a running product
        total += factor
    return total
