"""A model: its stored constants by name, and how it is read, copied, run and saved."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.files import read_plain
from onnx_sipp.graph.claims import MOST_MESSAGE_BYTES, refuse_claims
from onnx_sipp.graph.external import external_reference
from onnx_sipp.graph.handing_over import hand_over_all
from onnx_sipp.graph.messages import parse, serialized
from onnx_sipp.graph.runnable import Runnable, without_initializers
from onnx_sipp.graph.saving import Saving
from onnx_sipp.graph.sites import Sites
from onnx_sipp.graph.tensors import is_external, payload_bytes
from onnx_sipp.store import TensorStore

__all__ = ["Model", "ModelSource"]

ModelSource = ModelProto | bytes | str | Path


class Model:
    """An ONNX model whose constants can be replaced without touching anything else.

    Constants of the main graph are addressed by name: initializers and the outputs of Constant
    nodes. Those anywhere in the model are reached by `sites`.

    Args:
        proto: used as it is; external tensors must not have been loaded.
        path: the file it came from, None if it has none.
        libraries: files with operators that a runtime must load before it.

    Attributes:
        sites: the places of all constants.
        stored: constants of the main graph by name.

    Raises:
        SippError: external data is out of reach.
    """

    def __init__(
        self, proto: ModelProto, path: Path | None = None, libraries: Sequence[Path] = ()
    ) -> None:
        self.proto = proto
        self.path = path
        self.libraries = tuple(libraries)
        self.sites = Sites(proto, path)
        self.stored = self.sites.stored

    @classmethod
    def load(cls, source: Model | ModelSource, libraries: Sequence[Path] = ()) -> Model:
        """Read a model from a file, its bytes, or a ModelProto (which is copied).

        Args:
            source: of the model.
            libraries: see above; a `Model` brings its own.

        Raises:
            UsageError: there is no such file, or it is a folder; or the source is none of these.
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
        if not isinstance(source, str | PathLike):
            raise UsageError(
                "the model must be a path, the bytes of a model or a ModelProto, not "
                f"{type(source).__name__}"
            )
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
        result.sites.take_over(self.sites, store)
        return result

    @property
    def unseen(self) -> frozenset[str]:
        """Tensors that are known never to have an element."""
        return frozenset()

    def read(self, name: str) -> NDArray[Any]:
        """Elements of a stored constant, as they are now.

        Raises:
            SippError: its payload is damaged.
        """
        return self.sites.read(self.sites.named(name))

    def read_slab(self, name: str, axis: int, rows: slice) -> NDArray[Any]:
        """A range of a stored constant's elements along one axis; of external data nothing else.

        Raises:
            SippError: its payload is damaged.
        """
        return self.sites.slab(self.sites.named(name), axis, rows)

    def derived(self, name: str, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """What is made of a stored constant's elements, to look at; see `Sites.derived`."""
        return self.sites.derived(self.sites.named(name), key, make)

    def constant_bytes(self, name: str) -> int:
        """Bytes of a stored constant's elements."""
        return payload_bytes(self.stored[name])

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
        replaced = self.sites.replaced
        for site in replaced:  # initializers of the main graph are the first sites
            kept = replaced.released(site)
            result.sites.replaced.share(site + (len(added) if site >= before else 0), kept)
        return result

    def replace(self, name: str, values: NDArray[Any]) -> None:
        """Put new elements in place of a stored constant's; shape and type stay."""
        self.sites.put(self.sites.named(name), values)

    def replace_slab(self, name: str, axis: int, start: int, values: NDArray[Any]) -> None:
        """Put new elements in place of a range of a stored constant's along one axis."""
        if is_external(self.stored[name]):
            self.sites.put_slab(self.sites.named(name), axis, start, values)
        else:
            self.replace(name, self._with_slab(name, axis, start, values))

    def _with_slab(self, name: str, axis: int, start: int, values: NDArray[Any]) -> NDArray[Any]:
        """The elements of a stored constant with others in a range along one axis."""
        whole = self.read(name).copy()
        whole[(slice(None),) * axis + (slice(start, start + values.shape[axis]),)] = values
        return whole

    def runnable(self, asked: Sequence[str] = ()) -> Runnable:
        """The model for a runtime.

        Args:
            asked: tensors that will be asked for; the graph's outputs are there anyway.

        Raises:
            SippError: larger than a protobuf message may be (2 GB).
        """
        lent: dict[str, NDArray[Any]] = {}
        if self.sites.external:
            proto = ModelProto()
            proto.CopyFrom(self.proto)
            self.sites.put_replaced_inside(proto)
        else:
            proto = without_initializers(self.proto)
            hand_over_all(self.sites, self.proto.graph.initializer, proto.graph, lent)
        present = {output.name for output in proto.graph.output}
        proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in asked if n not in present)
        folder = self.sites.folder if self.sites.external else None
        return Runnable(serialized(proto), folder, lent)

    def inlined(self) -> ModelProto:
        """A copy of the message with every payload inside.

        Raises:
            SippError: an external file cannot be read.
        """
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        self.sites.put_all_inside(proto)
        return proto

    @property
    def files(self) -> list[Path]:
        """The model's file and its external data; none if it came from memory."""
        if self.path is None:
            return []
        places = (external_reference(tensor).location for tensor in self.sites.external)
        return [self.path, *(self.sites.folder / place for place in dict.fromkeys(places))]

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
        return Saving(self.proto, self.sites, self.files)
