"""What is known of a lowered graph, and which constants and sites belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from onnx import NodeProto

from onnx_sipp.graph.kinds import Skipped
from onnx_sipp.graph.lowering.flat import Twin
from onnx_sipp.graph.lowering.reads import Read
from onnx_sipp.graph.lowering.trace import Tracer
from onnx_sipp.graph.lowering.virtual import Numbering, Virtual
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import Label

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """What belongs to a lowered graph and never changes; copies of the model share it.

    Attributes:
        original: the model that was lowered; is not changed.
        labels: of the nodes of the lowered graph, in their order.
        twins: stored constants that are a site of the original, by name.
        virtual: stored constants that are made of elements of sites, by name.
        refused: by label, nodes that a rule refused.
        reads: who reads which constant.
        numbering: of all stored elements.
        tracer: of the lowered graph's constants.
        taps: places of the nodes that only hand out activations of layers inside subgraphs.
        conditions: what Ifs decide by that are left in the main graph, by label; tensors of the
            main graph.
        unseen: names of tensors that never have an element: the activations of layers that no
            sample reaches.
        unwatched: those of them whose layers may be reached, but cannot be watched: their inputs
            have other shapes in every iteration.
        left_out: nodes of the branches that these layers lie in.
        notes: what the user must know.
        spare: biases of zeros that the original does not have (see `spare`), by name: the output of
            the node that each belongs to.
    """

    original: Model
    labels: tuple[Label, ...]
    twins: Mapping[str, Twin]
    virtual: Mapping[str, Virtual]
    refused: Mapping[str, Skipped]
    reads: tuple[Read, ...]
    numbering: Numbering
    tracer: Tracer
    taps: frozenset[int]
    conditions: Mapping[str, str]
    unseen: frozenset[str]
    unwatched: frozenset[str]
    left_out: tuple[tuple[NodeProto, Label], ...]
    notes: tuple[str, ...]
    spare: Mapping[str, str]

    @cached_property
    def sites(self) -> Mapping[str, frozenset[int]]:
        """By name of a stored constant, or of one that is read: the sites that it depends on."""
        found = {name: frozenset([twin.site]) for name, twin in self.twins.items()}
        for name, virtual in self.virtual.items():
            found[name] = frozenset(site for site, _, _ in self.numbering.split(virtual.ids))
        for name in {read.name for read in self.reads} - set(found):
            sources = self.tracer.sources(name)
            found[name] = frozenset(self.twins[n].site for n in sources if n in self.twins)
        return found

    @cached_property
    def stored_at(self) -> Mapping[int, tuple[str, ...]]:
        """By site, the stored constants that depend on it."""
        found: dict[int, tuple[str, ...]] = {}
        for name in (*self.twins, *self.virtual):
            for site in self.sites[name]:
                found[site] = (*found.get(site, ()), name)
        return found

    @cached_property
    def reads_at(self) -> Mapping[int, tuple[Read, ...]]:
        """By site, the reads that depend on it."""
        found: dict[int, list[Read]] = defaultdict(list)
        for read in self.reads:
            for site in self.sites[read.name]:
                found[site].append(read)
        return {site: tuple(reads) for site, reads in found.items()}
