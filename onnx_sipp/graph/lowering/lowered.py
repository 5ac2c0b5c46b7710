"""The lowered model: used like a `Model`, written through to the original."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto

from onnx_sipp.graph.handing_over import hand_over_all
from onnx_sipp.graph.lowering.flat import Twin
from onnx_sipp.graph.lowering.plan import Plan
from onnx_sipp.graph.messages import serialized
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.order import only_needed, reads
from onnx_sipp.graph.payloads import Replacements
from onnx_sipp.graph.runnable import Runnable
from onnx_sipp.graph.tensors import is_external
from onnx_sipp.store import TensorStore

__all__ = ["Lowered"]


class Lowered(Model):
    """A lowered model. What is written to its constants is kept for the original, too.

    Args:
        proto: the lowered graph.
        plan: what belongs to it.
    """

    def __init__(self, proto: ModelProto, plan: Plan) -> None:
        super().__init__(proto, plan.original.path, plan.original.libraries)
        self.plan = plan
        self._changes = Replacements()

    @property
    def unseen(self) -> frozenset[str]:
        """The activations of layers that no sample reaches."""
        return self.plan.unseen

    def runnable(self, asked: Sequence[str] = ()) -> Runnable:
        """See `Model.runnable`; taps that are not asked for are left out, and all else likewise."""
        source = self.proto.graph
        declared = {value.name: value for value in source.output}
        names = list(asked) or list(declared)
        nodes = only_needed(source.node, names)
        used = {name for node in nodes for name in reads(node)} | set(names)
        used |= {value.name for value in source.input}
        result = ModelProto(ir_version=self.proto.ir_version)
        result.opset_import.extend(self.proto.opset_import)
        graph = result.graph
        graph.name = source.name
        graph.input.extend(source.input)
        graph.node.extend(nodes)
        graph.output.extend(declared.get(n, ValueInfoProto(name=n)) for n in names)
        lent: dict[str, NDArray[Any]] = {}
        initializers = (t for t in source.initializer if t.name in used)
        hand_over_all(self.sites, initializers, graph, lent)
        graph.sparse_initializer.extend(
            tensor for tensor in source.sparse_initializer if tensor.values.name in used
        )
        folder = self.sites.folder if self.sites.external else None
        return Runnable(serialized(result), folder, lent)

    def copy(self, store: TensorStore | None = None) -> Lowered:
        """See `Model.copy`; the store keeps what will be replaced in the original, too."""
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        result = Lowered(proto, self.plan)
        result.sites.take_over(self.sites, store)
        result._changes = self._changes.copy(store)
        return result

    def replace(self, name: str, values: NDArray[Any]) -> None:
        """Put new values in place of a stored constant's.

        They become those that the original can store, and reach everything that reads the same
        stored elements.

        Args:
            name: of a constant for which `is_written_through` holds, or of a spare bias.
            values: same shape and type.
        """
        if self.is_spare(name):
            super().replace(name, values)
            return
        twin = self.plan.twins.get(name)
        if twin is None:
            virtual = self.plan.virtual[name]
            changes = virtual.encode(values, self.plan.numbering, self._payload)
        else:
            changes = {twin.site: values}
        for site, new in changes.items():
            holder = self.plan.original.sites.holders[site]
            if isinstance(holder, TensorProto) and is_external(holder):
                self._changes.put(site, new)
            else:  # the message is in memory anyway
                self._changes.share(site, new)
        for reader in dict.fromkeys(n for site in changes for n in self.plan.stored_at[site]):
            if reader in self.stored:  # else nothing of the lowered graph reads it
                self._refresh(reader)

    def replace_slab(self, name: str, axis: int, start: int, values: NDArray[Any]) -> None:
        """See `Model.replace_slab`, and `replace`."""
        twin, tensor = self.plan.twins.get(name), self.stored[name]
        if twin is None or not is_external(tensor) or self.plan.stored_at[twin.site] != (name,):
            self.replace(name, self._with_slab(name, axis, start, values))
            return
        before = partial(self.read_slab, name, 0)
        self._changes.put_slab(twin.site, axis, start, values, tuple(tensor.dims), before)
        self.sites.share(self.sites.named(name), self._changes.kept(twin.site))

    def _refresh(self, name: str) -> None:
        """Bring a constant of the lowered graph up to date with the sites it depends on."""
        twin = self.plan.twins.get(name)
        if twin is not None and is_external(self.stored[name]):
            self.sites.share(self.sites.named(name), self._changes.kept(twin.site))
        else:
            super().replace(name, self._present(name))

    def result(self) -> Model:
        """The original with everything that was replaced, and the biases that were made use of."""
        model = self.plan.original.copy()
        for site in self._changes:
            model.sites.share(site, self._changes.released(site))
        return model.with_biases(
            {
                output: (name, values)
                for name, output in self.plan.spare.items()
                if name in self.stored and np.any(values := self.read(name))
            }
        )

    def is_written_through(self, name: str) -> bool:
        """Whether a constant stands for elements of the original."""
        return name in self.plan.twins or name in self.plan.virtual

    def is_exclusive(self, name: str) -> bool:
        """Whether a change of a constant reaches the original, and nothing but its own reader.

        That may be the node that a virtual weight was made for: it is to see the change, too.
        """
        if self.is_spare(name):
            return True
        if not self.is_written_through(name):
            return False
        virtual = self.plan.virtual.get(name)
        owner = (virtual.owner, virtual.operand, 1) if virtual else None
        others = {
            read.name
            for site in self.plan.sites[name]
            for read in self.plan.reads_at.get(site, ())
            if read.name != name and (read.reader, read.name, read.times) != owner
        }
        return not any(self.have_common_elements(name, other) for other in others)

    def is_spare(self, name: str) -> bool:
        """Whether a constant is a bias, of zeros at first, that the original does not have."""
        return name in self.plan.spare

    def have_common_elements(self, one: str, other: str) -> bool:
        """Whether two constants depend on some stored element both."""
        return bool(
            self.plan.sites[one] & self.plan.sites[other]
            and np.isin(self.elements(one), self.elements(other)).any()
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
        return self.plan.tracer.elements(name)

    def first_element(self, name: str) -> int:
        """The least of the elements of a weight."""
        if name in self.plan.twins:
            return self.plan.numbering.first(self.plan.twins[name].site)
        return int(self.plan.virtual[name].ids.min())

    def called(self, name: str) -> str:
        """Name of a constant in the original: of what its node reads there."""
        virtual = self.plan.virtual.get(name)
        return self.plan.twins[name].name if virtual is None else virtual.operand

    def sources(self, name: str) -> list[Twin]:
        """The stored constants of the original that a weight is made of."""
        at = self.plan.stored_at
        names = [at[site][0] for site in sorted(self.plan.sites[name])]
        return [self.plan.twins[source] for source in names]

    def weight_name(self, name: str) -> str:
        """Names of the stored constants that a weight is made of, for people."""
        if self.is_spare(name):
            return name
        return ", ".join(twin.name for twin in self.sources(name))

    def route(self, name: str) -> str:
        """How a weight comes from the file to its node, for people."""
        kinds = dict.fromkeys(twin.kind for twin in self.sources(name))
        way = self.plan.virtual[name].way if name in self.plan.virtual else ()
        return " and ".join(kinds) + (f" via {', '.join(way)}" if way else "")

    def _present(self, name: str) -> NDArray[Any]:
        if name in self.plan.twins:
            return self._payload(self.plan.twins[name].site)
        return self.plan.virtual[name].decode(self.plan.numbering, self._payload)

    def _payload(self, site: int) -> NDArray[Any]:
        return (
            self._changes.read(site)
            if site in self._changes
            else self.plan.original.sites.read(site)
        )
