"""Which weights read which groups, and which units are to go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.channels.groups import Group, Volumes, find_groups
from onnx_sipp.channels.trace import Trace
from onnx_sipp.channels.units import FIXED, Ids
from onnx_sipp.graph.layers import Findings
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.weights import Weight

__all__ = ["Coupling", "Gone"]

# By group, the places of the units that go, in the order of the group's units.
Gone = Mapping[int, NDArray[np.int64]]


@dataclass(frozen=True)
class Coupling:
    """The groups of a model beside the weights that are refitted.

    Attributes:
        trace: of the original model.
        groups: all of them; those with a reason lose nothing.
        readers: per group, the weights that sum over it.
        columns: per weight, ``[group, fan_in]``: the unit behind every input.
        volumes: of the whole model.
    """

    trace: Trace
    groups: tuple[Group, ...]
    readers: tuple[tuple[int, ...], ...]
    columns: tuple[Ids, ...]
    volumes: Volumes

    @classmethod
    def of(
        cls, lowered: Lowered, trace: Trace, findings: Findings, weights: Sequence[Weight],
        names: Sequence[str],
    ) -> Coupling:  # fmt: skip
        """Bring groups and weights together.

        Args:
            lowered: the model.
            trace: of the original.
            findings: layers that are refitted, and why others are not.
            weights: of these layers.
            names: of the original's nodes.
        """
        model = lowered.plan.original
        skipped = {skip.name: skip.reason for skip in findings.skipped}
        # A layer that stands for a part of a node is found by the node's name.
        labels = lowered.plan.labels
        of_node = {
            labels[layer.index].reader: (index, weight)
            for index, weight in enumerate(weights)
            for layer in weight.layers
        }
        columns = [np.full((weight.shape[0], weight.shape[2]), FIXED) for weight in weights]
        reads: dict[int, int] = {}
        unread: dict[int, str] = {}
        for number, contraction in enumerate(trace.contractions):
            index, weight = of_node.get(names[contraction.node], (-1, None))
            units = trace.units.roots(contraction.channels)
            parts, _, fan_in = (0, 0, 0) if weight is None else weight.shape
            if not parts or len(units) not in (1, parts) or fan_in % units.shape[1]:
                name = names[contraction.node]
                reason = skipped.get(name, "it is not among the layers that can be")
                unread[number] = f"{name!r}, which reads them, is not refitted: {reason}"
                continue
            # All matrices of a batch read the same; channels lie before places of a kernel.
            units = np.broadcast_to(units, (parts, units.shape[1]))
            columns[index] = np.repeat(units, fan_in // units.shape[1], axis=1)
            reads[number] = index
        groups = [
            _barred(group, [skipped.get(names[place], "") for place in group.makers], unread)
            for group in find_groups(model, trace, names)
        ]
        readers = [
            tuple(dict.fromkeys(reads[n] for n in group.readers if n in reads)) for group in groups
        ]
        return cls(
            trace, tuple(groups), tuple(readers), tuple(columns), Volumes(model, trace, groups)
        )

    @property
    def free(self) -> list[int]:
        """Groups that may lose units."""
        return [number for number, group in enumerate(self.groups) if not group.reason]

    def reasons(self) -> str:
        """Why groups lose nothing, the first ten, for people."""
        kept = [group for group in self.groups if group.reason][:10]
        if not self.groups:
            return "\n  no channels run from one layer to another that is known"
        return "".join(f"\n  {group.name}: {group.reason}" for group in kept)

    def barred(self, reasons: Mapping[int, str]) -> Coupling:
        """The same with groups that turned out not to be cut.

        Args:
            reasons: by group.
        """
        groups = [
            replace(group, reason=reasons.get(number, group.reason))
            for number, group in enumerate(self.groups)
        ]
        return replace(self, groups=tuple(groups))

    def places(self, index: int, number: int) -> NDArray[np.int64]:
        """``[group, fan_in]`` of a weight: places of a group's units behind its inputs, else -1."""
        units = self.groups[number].units
        order = np.argsort(units)
        columns = self.columns[index]
        found = order[np.clip(np.searchsorted(units[order], columns), 0, units.size - 1)]
        return np.where(units[found] == columns, found, -1)

    def numbers(self, gone: Gone) -> Ids:
        """The units that go, by number."""
        parts = [self.groups[number].units[places] for number, places in gone.items()]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def counts(self, gone: Gone) -> NDArray[np.float64]:
        """Per group, how many units stay."""
        result = np.array([group.count for group in self.groups], np.float64)
        for number, places in gone.items():
            result[number] -= places.size
        return result

    def kept(self, index: int, gone: Ids, outs: int) -> NDArray[np.bool_]:
        """The mask of a weight, ``[group, outs, fan_in]``: False where its input goes.

        Args:
            index: of the weight.
            gone: units by number.
            outs: neurons per group.
        """
        stays = ~np.isin(self.columns[index], gone)
        return np.repeat(stays[:, None], outs, axis=1)


def _barred(group: Group, makers: Sequence[str], unread: Mapping[int, str]) -> Group:
    excluded = [reason for reason in makers if reason.startswith("excluded")]
    reasons = [*(unread[number] for number in group.readers if number in unread), *excluded]
    return group if group.reason or not reasons else replace(group, reason=reasons[0])
