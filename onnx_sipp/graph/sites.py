"""The places of a model that hold elements: how these are read, and new ones put there."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, TensorProto

from onnx_sipp.errors import SippError
from onnx_sipp.graph.external import (
    checked_file,
    external_reference,
    read_bytes,
    read_external_slab,
)
from onnx_sipp.graph.messages import put_inside
from onnx_sipp.graph.payloads import Replacements
from onnx_sipp.graph.tensors import (
    is_external,
    packed_bytes,
    payload_bytes,
    read_inline,
    read_numbers,
    read_packed,
    write_inline,
    write_numbers,
)
from onnx_sipp.graph.walk import Holder, all_sites, all_tensors, stored_tensors
from onnx_sipp.store import Held, Kept, TensorStore, load

__all__ = ["Sites"]

# Of what is made of elements in the message, and kept.
_HELD_BYTES = 128 << 20


class Sites:
    """The *sites* of a message, and what stands there.

    A site is a place that holds elements, by its number in the walk over the message
    (`walk.all_sites`), which is the same in every copy. Payloads in external files stay there,
    mapped and never loaded whole; what replaces them is kept beside.

    Args:
        proto: the message, which is changed; external tensors must not have been loaded.
        path: the file it came from, None if it has none.

    Attributes:
        holders: what holds the elements of each site.
        stored: constants of the main graph by name: initializers and values of Constant nodes.
        external: tensors whose elements lie in external files.
        replaced: new elements of these.

    Raises:
        SippError: external data is out of reach.
    """

    def __init__(self, proto: ModelProto, path: Path | None) -> None:
        self._path = path
        self.holders = tuple(all_sites(proto))
        self._number = {id(holder): site for site, holder in enumerate(self.holders)}
        self.stored = dict(stored_tensors(proto.graph))
        self.replaced = Replacements()
        self._last: tuple[int, NDArray[Any]] | None = None
        self._held = Held(_HELD_BYTES)
        self.external = [tensor for tensor in all_tensors(proto) if is_external(tensor)]
        if self.external and path is None:
            raise SippError(
                f"tensor {self.external[0].name!r} lies in an external file, but a model in "
                "memory has no folder; pass the model's path instead"
            )
        for tensor in self.external:
            reference = external_reference(tensor)
            checked_file(reference.location, self.folder)
            if tensor.name in self.stored:
                read_bytes(reference, self.folder, payload_bytes(tensor))

    @property
    def folder(self) -> Path:
        """Folder that external data must lie in: that of the model's path, as onnx has it."""
        return (self._path or Path()).parent.resolve()

    def named(self, name: str) -> int:
        """The site of a constant of the main graph."""
        return self.of(self.stored[name])

    def of(self, holder: Holder) -> int:
        """The site of a part of this very message (not of an equal one)."""
        return self._number[id(holder)]

    def has(self, holder: Holder) -> bool:
        """Whether a part of this very message is a site."""
        return id(holder) in self._number

    def read(self, site: int) -> NDArray[Any]:
        """Elements at a site, as they are now.

        Raises:
            SippError: the payload is damaged.
        """
        holder = self.holders[site]
        if isinstance(holder, AttributeProto):
            return read_numbers(holder)
        if not is_external(holder):
            return self.derived(site, "elements", partial(read_inline, holder))
        if site in self.replaced:
            return self.replaced.read(site)
        raw = read_bytes(external_reference(holder), self.folder, payload_bytes(holder))
        return read_packed(holder, raw)

    def derived(self, site: int, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """What is made of the elements at a site, to look at; kept until there are others.

        Of external data nothing is kept: that is as large as it likes.

        Args:
            site: its number.
            key: tells it apart from what else is made of the same elements.
            make: makes it.
        """
        holder = self.holders[site]
        if isinstance(holder, AttributeProto) or is_external(holder):
            return make()
        return self._held.get(site, key, make)

    def slab(self, site: int, axis: int, rows: slice) -> NDArray[Any]:
        """A range of the elements along one axis; of external data nothing else is read.

        Raises:
            SippError: the payload is damaged.
        """
        holder = self.holders[site]
        if isinstance(holder, AttributeProto) or not is_external(holder):
            return self._whole(site)[(slice(None),) * axis + (rows,)]
        if site in self.replaced:
            return self.replaced.slab(site, axis, rows)
        return read_external_slab(holder, self.folder, axis, rows)

    def _whole(self, site: int) -> NDArray[Any]:
        """All of a constant in the message, which copies it, but not for every range of it anew."""
        last = self._last
        if last is None or last[0] != site:
            last = self._last = site, self.read(site)
            last[1].setflags(write=False)
        return last[1]

    def put(self, site: int, values: NDArray[Any]) -> None:
        """Put new elements at a site; shape and type stay."""
        holder = self.holders[site]
        if isinstance(holder, AttributeProto):
            write_numbers(holder, values)
        elif is_external(holder):
            self.replaced.put(site, values)
        else:
            write_inline(holder, values)
        self._last = None  # someone may have read it meanwhile
        self._held.forget(site)

    def let_go(self) -> None:
        """Keep nothing that can be made again."""
        self._last, self._held = None, Held(_HELD_BYTES)

    def take_over(self, other: Sites, store: TensorStore | None) -> None:
        """Take what stands at the sites of an equal message, and what was made of that.

        Args:
            other: its sites.
            store: keeps what will be replaced of external data; None for where the other does.
        """
        self.replaced = other.replaced.copy(store)
        self._held = other._held.copy()

    def share(self, site: int, kept: Kept) -> None:
        """Put new elements at a site that are kept already; external data stays where it is."""
        holder = self.holders[site]
        if isinstance(holder, TensorProto) and is_external(holder):
            self.replaced.share(site, kept)
        else:
            self.put(site, load(kept))

    def put_slab(self, site: int, axis: int, start: int, values: NDArray[Any]) -> None:
        """Put new elements in place of a range, along one axis, of external data."""
        holder = self.holders[site]
        assert isinstance(holder, TensorProto)
        before = partial(self.slab, site, 0)
        self.replaced.put_slab(site, axis, start, values, tuple(holder.dims), before)

    def with_payload(self, name: str) -> TensorProto:
        """A constant of the main graph as an initializer with its present elements inside."""
        result = TensorProto()
        result.CopyFrom(self.stored[name])
        if is_external(result):
            put_inside(result, packed_bytes(self.read(self.named(name))))
        result.name = name
        return result

    def put_replaced_inside(self, copy: ModelProto) -> None:
        """Put the new elements of external tensors into a copy of the message."""
        for site, holder in enumerate(all_sites(copy)):
            if site in self.replaced and isinstance(holder, TensorProto):
                put_inside(holder, packed_bytes(self.replaced.read(site)))

    def put_all_inside(self, copy: ModelProto) -> None:
        """Put the elements of all external tensors, new ones and others, into a copy.

        Raises:
            SippError: an external file cannot be read.
        """
        for tensor, own in zip(all_sites(copy), self.holders, strict=True):
            if isinstance(own, TensorProto) and is_external(own):
                assert isinstance(tensor, TensorProto)
                reference = external_reference(own)
                raw = read_bytes(reference, self.folder, payload_bytes(own)).tobytes()
                put_inside(tensor, raw)
        self.put_replaced_inside(copy)
