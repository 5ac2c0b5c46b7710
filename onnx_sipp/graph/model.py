"""A model: its stored constants, how they are read and replaced, and what a runtime gets of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, numpy_helper

from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.files import read_plain
from onnx_sipp.graph.claims import MOST_MESSAGE_BYTES, refuse_claims
from onnx_sipp.graph.external import (
    checked_file,
    external_reference,
    read_bytes,
    read_external_slab,
)
from onnx_sipp.graph.messages import parse, put_inside, serialized
from onnx_sipp.graph.payloads import Replacements
from onnx_sipp.graph.runnable import Runnable, lent_reference, without_initializers
from onnx_sipp.graph.saving import Saving
from onnx_sipp.graph.tensors import (
    is_external,
    numpy_dtype,
    packed_bytes,
    payload_bytes,
    read_inline,
    read_numbers,
    read_packed,
    write_inline,
    write_numbers,
)
from onnx_sipp.graph.walk import Holder, all_sites, all_tensors, stored_tensors
from onnx_sipp.store import Kept, TensorStore, load

__all__ = ["Model"]

# Constants from this size on are handed to a runtime without a copy.
MAPPED_BYTES = 1 << 20


class Model:
    """An ONNX model whose constants can be replaced without touching anything else.

    Constants of the main graph are addressed by name: initializers and the outputs of Constant
    nodes. Those anywhere in the model are addressed by *site*: a place that holds elements, by its
    number in the walk over the message (`walk.all_sites`), which is the same in every copy.
    Payloads in external files stay there, mapped and never loaded whole.

    Args:
        proto: used as it is; external tensors must not have been loaded.
        path: the file it came from, None if it has none.
        libraries: files with operators that a runtime must load before it.
    """

    def __init__(
        self, proto: ModelProto, path: Path | None = None, libraries: Sequence[Path] = ()
    ) -> None:
        self.proto = proto
        self.path = path
        self.libraries = tuple(libraries)
        self.sites = tuple(all_sites(proto))
        self._number = {id(holder): site for site, holder in enumerate(self.sites)}
        self.stored = dict(stored_tensors(proto.graph))
        self._replaced = Replacements()
        self._last: tuple[int, NDArray[Any]] | None = None
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

    @classmethod
    def load(
        cls, source: Model | ModelProto | bytes | str | Path, libraries: Sequence[Path] = ()
    ) -> Model:
        """Read a model from a file, its bytes, or a ModelProto (which is copied).

        Args:
            source: of the model.
            libraries: see above; a `Model` brings its own.

        Raises:
            UsageError: there is no such file, or it is a folder.
            SippError: it cannot be read, or is no ONNX model.
        """
        if isinstance(source, Model):
            return source.copy()
        if isinstance(source, ModelProto):
            proto = ModelProto()
            proto.CopyFrom(source)
            refuse_claims(proto)
            return cls(proto, None, libraries)
        if isinstance(source, bytes):
            return cls(parse(source, "the given bytes"), None, libraries)
        path = Path(source)
        try:
            data = read_plain(path, MOST_MESSAGE_BYTES)
        except FileNotFoundError as error:
            raise UsageError(f"there is no file {str(path)!r}") from error
        except IsADirectoryError as error:
            raise UsageError(f"{str(path)!r} is a folder; give the .onnx file inside it") from error
        except OSError as error:
            raise SippError(f"cannot read {str(path)!r}: {error.strerror}") from error
        return cls(parse(data, repr(str(path))), path, libraries)

    def copy(self, store: TensorStore | None = None) -> Model:
        """An independent copy, external data still where it is.

        Args:
            store: keeps what will be replaced of external data; None for where this model does,
                which is memory at first.
        """
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        result = Model(proto, self.path, self.libraries)
        result._replaced = self._replaced.copy(store)
        return result

    @property
    def unseen(self) -> frozenset[str]:
        """Tensors that are known never to have an element."""
        return frozenset()

    @property
    def folder(self) -> Path:
        """Folder that external data must lie in: that of the model's path, as onnx has it."""
        return (self.path or Path()).parent.resolve()

    def read(self, name: str) -> NDArray[Any]:
        """Elements of a stored constant, as they are now.

        Raises:
            SippError: its payload is damaged.
        """
        return self.read_site(self.site_of(self.stored[name]))

    def site_of(self, holder: Holder) -> int:
        """The site of a message of this very model (not of an equal one)."""
        return self._number[id(holder)]

    def is_site(self, holder: Holder) -> bool:
        """Whether a message of this very model is a site."""
        return id(holder) in self._number

    def read_site(self, site: int) -> NDArray[Any]:
        """Elements at a site, as they are now.

        Raises:
            SippError: the payload is damaged.
        """
        holder = self.sites[site]
        if isinstance(holder, AttributeProto):
            return read_numbers(holder)
        if not is_external(holder):
            return read_inline(holder)
        if site in self._replaced:
            return self._replaced.read(site)
        raw = read_bytes(external_reference(holder), self.folder, payload_bytes(holder))
        return read_packed(holder, raw)

    def read_slab(self, name: str, axis: int, rows: slice) -> NDArray[Any]:
        """A range of a stored constant's elements along one axis; of external data nothing else.

        Raises:
            SippError: its payload is damaged.
        """
        tensor = self.stored[name]
        site = self.site_of(tensor)
        if not is_external(tensor):
            return self._whole(site)[(slice(None),) * axis + (rows,)]
        if site in self._replaced:
            return self._replaced.slab(site, axis, rows)
        return read_external_slab(tensor, self.folder, axis, rows)

    def _whole(self, site: int) -> NDArray[Any]:
        """All of a constant in the message, which copies it, but not for every range of it anew."""
        last = self._last
        if last is None or last[0] != site:
            last = self._last = site, self.read_site(site)
        return last[1]

    def constant_bytes(self, name: str) -> int:
        """Bytes of a stored constant's elements."""
        return payload_bytes(self.stored[name])

    def mapped(self, name: str) -> NDArray[Any] | None:
        """A large external constant as a runtime can take it, mapped; None for all others."""
        tensor = self.stored[name]
        if not is_external(tensor) or payload_bytes(tensor) < MAPPED_BYTES:
            return None
        return self.read(name) if numpy_dtype(tensor).isbuiltin == 1 else None

    def with_payload(self, name: str) -> TensorProto:
        """A stored constant as an initializer with its present elements inside."""
        result = TensorProto()
        result.CopyFrom(self.stored[name])
        if is_external(result):
            put_inside(result, packed_bytes(self.read(name)))
        result.name = name
        return result

    def route(self, name: str) -> str:
        """How a stored constant comes into the graph, for people."""
        if any(node.output and node.output[0] == name for node in self.proto.graph.node):
            return "Constant node"
        also_input = any(value.name == name for value in self.proto.graph.input)
        kind = "initializer, also a graph input" if also_input else "initializer"
        return f"{kind}, external data" if is_external(self.stored[name]) else kind

    def is_exclusive(self, name: str) -> bool:
        """Whether no other constant of the main graph stands for the same stored elements."""
        return name in self.stored

    def is_spare(self, name: str) -> bool:
        """Whether a constant is a bias that the file does not have."""
        del name
        return False

    def with_biases(self, added: Mapping[str, tuple[str, NDArray[Any]]]) -> Model:
        """The model with a third input for nodes of the main graph; this one is used up.

        Args:
            added: by output of the node, the name of the new initializer and its elements.
        """
        if not added:
            return self
        proto = self.proto
        before = len(proto.graph.initializer)
        for node in proto.graph.node:
            name, values = added.get(node.output[0] if node.output else "", ("", None))
            if values is not None:
                node.input[:] = [*node.input[:2], name]
                proto.graph.initializer.append(numpy_helper.from_array(values, name))
        result = Model(proto, self.path, self.libraries)
        for site in self._replaced:  # initializers of the main graph are the first sites
            kept = self._replaced.released(site)
            result._replaced.share(site + (len(added) if site >= before else 0), kept)
        return result

    def replace(self, name: str, values: NDArray[Any]) -> None:
        """Put new elements in place of a stored constant's; shape and type stay."""
        self.replace_site(self.site_of(self.stored[name]), values)

    def replace_site(self, site: int, values: NDArray[Any]) -> None:
        """Put new elements at a site; shape and type stay."""
        self._last = None
        holder = self.sites[site]
        if isinstance(holder, AttributeProto):
            write_numbers(holder, values)
        elif is_external(holder):
            self._replaced.put(site, values)
        else:
            write_inline(holder, values)

    def share_site(self, site: int, kept: Kept) -> None:
        """Put new elements at a site that are kept already; external data stays where it is."""
        holder = self.sites[site]
        if isinstance(holder, TensorProto) and is_external(holder):
            self._replaced.share(site, kept)
        else:
            self.replace_site(site, load(kept))

    def replace_slab(self, name: str, axis: int, start: int, values: NDArray[Any]) -> None:
        """Put new elements in place of a range of a stored constant's along one axis."""
        tensor = self.stored[name]
        if is_external(tensor):
            before = partial(self.read_slab, name, 0)
            site, shape = self.site_of(tensor), tuple(tensor.dims)
            self._replaced.put_slab(site, axis, start, values, shape, before)
            return
        whole = self.read(name).copy()
        whole[(slice(None),) * axis + (slice(start, start + values.shape[axis]),)] = values
        self.replace(name, whole)

    def lendable(self, name: str) -> NDArray[Any] | None:
        """A large constant of the message as a runtime can take it from memory; None for others."""
        tensor = self.stored.get(name)
        if tensor is None or is_external(tensor) or payload_bytes(tensor) < MAPPED_BYTES:
            return None
        return self.read(name) if numpy_dtype(tensor).isbuiltin == 1 else None

    def runnable(self, asked: Sequence[str] = ()) -> Runnable:
        """The model for a runtime.

        Args:
            asked: tensors that will be asked for; the graph's outputs are there anyway.

        Raises:
            SippError: larger than a protobuf message may be (2 GB).
        """
        lent: dict[str, NDArray[Any]] = {}
        if self.external:
            proto = ModelProto()
            proto.CopyFrom(self.proto)
            self._put_replaced_inside(proto)
        else:
            proto = without_initializers(self.proto)
            self._hand_over_all(self.proto.graph.initializer, proto.graph, lent)
        present = {output.name for output in proto.graph.output}
        proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in asked if n not in present)
        return Runnable(serialized(proto), self.folder if self.external else None, lent)

    def hand_over(self, name: str, graph: GraphProto, lent: dict[str, NDArray[Any]]) -> None:
        """Put a constant, as it is now, into a graph for a runtime: lent if it can be, else inside.

        Args:
            name: of the constant.
            graph: gets it.
            lent: gets its elements, if they are lent.
        """
        values = self.lendable(name)
        if values is None:
            graph.initializer.append(self.with_payload(name))
        else:
            graph.initializer.append(lent_reference(self.stored[name], name))
            lent[name] = values

    def _hand_over_all(
        self, tensors: Iterable[TensorProto], graph: GraphProto, lent: dict[str, NDArray[Any]]
    ) -> None:
        """The same for initializers; external data that was not replaced stays where it is."""
        left_inside = {value.name for value in graph.input}  # a feed may replace them
        for tensor in tensors:
            if is_external(tensor) and self.site_of(tensor) not in self._replaced:
                graph.initializer.append(tensor)
            elif tensor.name in left_inside:
                graph.initializer.append(self.with_payload(tensor.name))
            else:
                self.hand_over(tensor.name, graph, lent)

    def inlined(self) -> ModelProto:
        """A copy of the message with every payload inside.

        Raises:
            SippError: an external file cannot be read.
        """
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        for tensor, own in zip(all_tensors(proto), all_tensors(self.proto), strict=True):
            if is_external(own):
                reference = external_reference(own)
                raw = read_bytes(reference, self.folder, payload_bytes(own)).tobytes()
                put_inside(tensor, raw)
        self._put_replaced_inside(proto)
        return proto

    def _put_replaced_inside(self, copy: ModelProto) -> None:
        for site, holder in enumerate(all_sites(copy)):
            if site in self._replaced and isinstance(holder, TensorProto):
                put_inside(holder, packed_bytes(self._replaced.read(site)))

    @property
    def files(self) -> list[Path]:
        """The model's file and its external data; none if it came from memory."""
        locations = dict.fromkeys(external_reference(tensor).location for tensor in self.external)
        return [self.path, *(self.folder / location for location in locations)] if self.path else []

    def bytes_on_disk(self) -> int | None:
        """Size of the model's file and its external data, None if it came from memory."""
        return sum(file.stat().st_size for file in self.files) if self.path else None

    def save(self, target: Path) -> None:
        """Write the model, with external data in ``<target>.data`` if it had any.

        Raises:
            UsageError: the target is the file the model came from, or its folder does not exist.
            SippError: writing failed; nothing is left behind.
        """
        self._saving.save(target)

    def refuse_target(self, target: Path) -> None:
        """Check, before any work is done, that the model may be written there.

        Raises:
            UsageError: the target is an input file, a folder, or in a missing or read-only folder.
        """
        self._saving.refuse_target(target)

    @property
    def _saving(self) -> Saving:
        return Saving(
            self.proto, self.sites, self.external, self._replaced, self.folder, self.files
        )
