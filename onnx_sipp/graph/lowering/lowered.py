"""The lowered model: used like a `Model`, written through to the original."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from onnx_sipp.graph.kinds import Skipped
from onnx_sipp.graph.lowering.flatten import Twin
from onnx_sipp.graph.lowering.reads import Read
from onnx_sipp.graph.lowering.trace import Tracer
from onnx_sipp.graph.lowering.virtual import Numbering, Virtual
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import Label, NotPrunable

__all__ = ["Lowered", "Plan"]


@dataclass(frozen=True)
class Plan:
    """What belongs to a lowered graph and never changes.

    Attributes:
        original: the model that was lowered; is not changed.
        labels: of the nodes of the lowered graph, in their order.
        twins: stored constants that are a site of the original, by name.
        virtual: stored constants that are made of elements of sites, by name.
        refused: by label, nodes that a rule refused.
        reads: who reads which constant.
        numbering: of all stored elements.
        tracer: of the lowered graph's constants.
    """

    original: Model
    labels: tuple[Label, ...]
    twins: Mapping[str, Twin]
    virtual: Mapping[str, Virtual]
    refused: Mapping[str, Skipped]
    reads: tuple[Read, ...]
    numbering: Numbering
    tracer: Tracer


class Lowered(Model):
    """A lowered model. What is written to its weights is kept for the original, too.

    Args:
        proto: the lowered graph.
        plan: what belongs to it.
    """

    def __init__(self, proto: ModelProto, plan: Plan) -> None:
        super().__init__(proto, plan.original.path)
        self.plan = plan
        self._changes: dict[int, NDArray[Any]] = {}
        self._touching: dict[int, list[str]] = defaultdict(list)
        for name, twin in plan.twins.items():
            self._touching[twin.site].append(name)
        for name, virtual in plan.virtual.items():
            for site, _, _ in plan.numbering.split(virtual.ids):
                self._touching[site].append(name)

    def copy(self) -> Lowered:
        """An independent copy."""
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        result = Lowered(proto, self.plan)
        result._replaced = dict(self._replaced)
        result._changes = dict(self._changes)
        return result

    def replace(self, name: str, values: NDArray[Any]) -> None:
        """Put new values in place of a stored constant's.

        They become those that the original can store, and reach everything that reads the same
        stored elements.

        Args:
            name: of a constant for which `is_written_through` holds.
            values: same shape and type.
        """
        if name in self.plan.twins:
            changes = {self.plan.twins[name].site: values}
        else:
            virtual = self.plan.virtual[name]
            changes = virtual.encode(values, self.plan.numbering, self._payload)
        self._changes |= changes
        for reader in dict.fromkeys(n for site in changes for n in self._touching[site]):
            if reader not in self.stored:
                continue  # nothing of the lowered graph reads it
            if reader in self.plan.twins:
                super().replace(reader, self._payload(self.plan.twins[reader].site))
            else:
                decoded = self.plan.virtual[reader].decode(self.plan.numbering, self._payload)
                super().replace(reader, decoded)

    def result(self) -> Model:
        """The original with everything that was replaced."""
        model = self.plan.original.copy()
        for site, values in self._changes.items():
            model.replace_site(site, values)
        return model

    def is_written_through(self, name: str) -> bool:
        """Whether a constant stands for elements of the original."""
        return name in self.plan.twins or name in self.plan.virtual

    def is_shared(self, name: str) -> bool:
        """Whether something reads elements of a constant under another name."""
        own = self.elements(name)
        return any(
            np.isin(self.elements(other), own).any()
            for other in {read.name for read in self.plan.reads} - {name}
            if self.sites_of(other) & self.sites_of(name)
        )

    def elements(self, name: str) -> NDArray[np.int64]:
        """Which stored elements a constant is made of (see `Numbering`), in its shape.

        For a constant that is calculated: all elements that it depends on, in no shape.
        """
        if name in self.plan.virtual:
            return self.plan.virtual[name].ids
        if name in self.plan.twins:
            ids = self.plan.numbering.of(self.plan.twins[name].site)
            return ids.reshape(tuple(self.stored[name].dims)) if name in self.stored else ids
        try:
            return self.plan.tracer.trace(name).ids
        except NotPrunable:
            known = [n for n in self.plan.tracer.sources(name) if n in self.plan.twins]
            parts = [self.elements(n).ravel() for n in sorted(known)]
            return np.concatenate([np.zeros(0, np.int64), *parts])

    def sites_of(self, name: str) -> set[int]:
        """The sites that a constant depends on."""
        if name in self.plan.virtual:
            return {site for site, _, _ in self.plan.numbering.split(self.plan.virtual[name].ids)}
        sources = self.plan.tracer.sources(name)
        return {self.plan.twins[n].site for n in sources if n in self.plan.twins}

    def called(self, name: str) -> str:
        """Name of a constant in the original: of what its node reads there."""
        virtual = self.plan.virtual.get(name)
        return self.plan.twins[name].name if virtual is None else virtual.operand

    def weight_name(self, name: str) -> str:
        """Names of the stored constants that a weight is made of, for people."""
        return ", ".join(twin.name for twin in self.sources(name))

    def sources(self, name: str) -> list[Twin]:
        """The stored constants of the original that a weight is made of."""
        by_site = {twin.site: twin for twin in reversed(list(self.plan.twins.values()))}
        return [by_site[site] for site in sorted(self.sites_of(name))]

    def route(self, name: str) -> str:
        """How a weight comes from the file to its node, for people."""
        kinds = dict.fromkeys(twin.kind for twin in self.sources(name))
        way = self.plan.virtual[name].way if name in self.plan.virtual else ()
        return " and ".join(kinds) + (f" via {', '.join(way)}" if way else "")

    def _payload(self, site: int) -> NDArray[Any]:
        return self._changes[site] if site in self._changes else self.plan.original.read_site(site)
