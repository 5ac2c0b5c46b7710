"""The model file: read it, find its stored constants, replace payloads, write it whole or not."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import google.protobuf.message
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto

from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.graph.external import (
    ExternalReference,
    checked_file,
    external_reference,
    open_checked,
    read_bytes,
)
from onnx_sipp.graph.tensors import is_external, payload_bytes, read_inline, write_inline

__all__ = ["Model", "all_tensors"]


class Model:
    """An ONNX model whose constants can be replaced without touching anything else.

    Constants are addressed by name: initializers and the outputs of Constant nodes. Payloads in
    external files stay there, mapped and never loaded whole.

    Args:
        proto: used as it is; external tensors must not have been loaded.
        path: the file it came from, None if it has none.
    """

    def __init__(self, proto: ModelProto, path: Path | None = None) -> None:
        self.proto = proto
        self.path = path
        self.stored = dict(_stored_tensors(proto.graph))
        self._replaced: dict[str, NDArray[Any]] = {}
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
    def load(cls, source: Model | ModelProto | bytes | str | Path) -> Model:
        """Read a model from a file, its bytes, or a ModelProto (which is copied).

        Raises:
            UsageError: there is no such file, or it is a folder.
            SippError: it cannot be read, or is no ONNX model.
        """
        if isinstance(source, Model):
            return source.copy()
        if isinstance(source, ModelProto):
            proto = ModelProto()
            proto.CopyFrom(source)
            return cls(proto)
        if isinstance(source, bytes):
            return cls(_parse(source, "the given bytes"))
        path = Path(source)
        if not path.exists():
            raise UsageError(f"there is no file {str(path)!r}")
        if path.is_dir():
            raise UsageError(f"{str(path)!r} is a folder; give the .onnx file inside it")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise SippError(f"cannot read {str(path)!r}: {error.strerror}") from error
        return cls(_parse(data, repr(str(path))), path)

    def copy(self) -> Model:
        """An independent copy, external data still where it is."""
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        result = Model(proto, self.path)
        result._replaced = dict(self._replaced)
        return result

    @property
    def folder(self) -> Path:
        """Folder that external data must lie in."""
        return (self.path or Path()).resolve().parent

    def read(self, name: str) -> NDArray[Any]:
        """Elements of a stored constant, as they are now.

        Raises:
            SippError: its payload is damaged.
        """
        tensor = self.stored[name]
        if not is_external(tensor):
            return read_inline(tensor)
        if name in self._replaced:
            return self._replaced[name]
        raw = read_bytes(external_reference(tensor), self.folder, payload_bytes(tensor))
        return raw.view(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(tensor.dims)

    def route(self, name: str) -> str:
        """How a stored constant comes into the graph, for people."""
        if any(node.output and node.output[0] == name for node in self.proto.graph.node):
            return "Constant node"
        also_input = any(value.name == name for value in self.proto.graph.input)
        kind = "initializer, also a graph input" if also_input else "initializer"
        return f"{kind}, external data" if is_external(self.stored[name]) else kind

    def replace(self, name: str, values: NDArray[Any]) -> None:
        """Put new elements in place of a stored constant's; shape and type stay."""
        tensor = self.stored[name]
        if is_external(tensor):
            self._replaced[name] = values
        else:
            write_inline(tensor, values)

    def runnable(self, extra_outputs: list[str] | None = None) -> tuple[bytes, Path | None]:
        """Bytes for a runtime, and the folder of the external data they still refer to.

        Args:
            extra_outputs: tensors to add to the graph's outputs, by name only.

        Raises:
            SippError: larger than a protobuf message may be (2 GB).
        """
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        present = {output.name for output in proto.graph.output}
        for name in extra_outputs or []:
            if name not in present:
                proto.graph.output.append(onnx.ValueInfoProto(name=name))
        for name, tensor in _stored_tensors(proto.graph):
            if name in self._replaced:
                _put_inside(tensor, np.ascontiguousarray(self._replaced[name]).tobytes())
        return _serialize(proto), self.folder if self.external else None

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
                _put_inside(tensor, raw)
        for name, tensor in _stored_tensors(proto.graph):
            if name in self._replaced:
                _put_inside(tensor, np.ascontiguousarray(self._replaced[name]).tobytes())
        return proto

    def bytes_on_disk(self) -> int | None:
        """Size of the model's file and its external data, None if it came from memory."""
        if self.path is None:
            return None
        locations = {external_reference(tensor).location for tensor in self.external}
        files = [self.path, *(self.folder / location for location in locations)]
        return sum(file.stat().st_size for file in files)

    def save(self, target: Path) -> None:
        """Write the model, with external data in ``<target>.data`` if it had any.

        Every file is written beside its place and renamed when all are complete, the model last.

        Raises:
            UsageError: the target is the file the model came from, or its folder does not exist.
            SippError: writing failed; nothing is left behind.
        """
        self.refuse_target(target)
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        names = self._new_locations(target)
        for tensor in all_tensors(proto):
            if is_external(tensor):
                for entry in tensor.external_data:
                    if entry.key == "location":
                        entry.value = names[entry.value]
        temporary: list[tuple[Path, Path]] = []
        try:
            for location, name in names.items():
                temporary.append(
                    (self._write_external(location, target.parent), target.parent / name)
                )
            temporary.append((_write_beside(target.parent, _serialize(proto)), target))
            for source, place in temporary:
                source.replace(place)
        except OSError as error:
            raise SippError(f"cannot write {str(target)!r}: {error.strerror or error}") from error
        finally:
            for source, _ in temporary:
                with suppress(OSError):
                    source.unlink(missing_ok=True)

    def refuse_target(self, target: Path) -> None:
        """Check, before any work is done, that the model may be written there.

        Raises:
            UsageError: the target is an input file, a folder, or in a missing or read-only folder.
        """
        if target.is_dir():
            raise UsageError(f"the output {str(target)!r} is a folder; name a file in it")
        if not target.parent.is_dir():
            raise UsageError(
                f"the folder {str(target.parent)!r} does not exist; create it or write elsewhere"
            )
        if not os.access(target.parent, os.W_OK):
            raise UsageError(f"the folder {str(target.parent)!r} is not writable")
        if self.path is None:
            return
        inputs = [self.path, *(self.folder / loc for loc in self._new_locations(target))]
        outputs = [target, *(target.parent / new for new in self._new_locations(target).values())]
        for output in outputs:
            if any(output.exists() and output.samefile(source) for source in inputs):
                raise UsageError(
                    f"{str(output)!r} would overwrite the input; an input is never changed, "
                    "so give another output name"
                )

    def _new_locations(self, target: Path) -> dict[str, str]:
        locations = dict.fromkeys(external_reference(tensor).location for tensor in self.external)
        return {
            location: f"{target.name}.data" if index == 0 else f"{target.name}.{index}.data"
            for index, location in enumerate(locations)
        }

    def _write_external(self, location: str, folder: Path) -> Path:
        """Copy one external file with the replaced payloads patched in."""
        path = _temporary(folder)
        try:
            with open_checked(location, self.folder) as source, path.open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 22)
                for name, values in self._replaced.items():
                    reference: ExternalReference = external_reference(self.stored[name])
                    if reference.location == location:
                        out.seek(reference.offset)
                        out.write(np.ascontiguousarray(values).tobytes())
                out.flush()
                os.fsync(out.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path


def all_tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every TensorProto of a model: initializers, attributes, subgraphs, functions."""
    graphs: list[GraphProto] = [proto.graph]
    node_lists = [function.node for function in proto.functions]
    while graphs or node_lists:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            node_lists.append(graph.node)
            continue
        for node in node_lists.pop():
            for attribute in node.attribute:
                yield from attribute.tensors
                if attribute.HasField("t"):
                    yield attribute.t
                graphs.extend(attribute.graphs)
                if attribute.HasField("g"):
                    graphs.append(attribute.g)


def _stored_tensors(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and node.output:
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.HasField("t"):
                    yield node.output[0], attribute.t


def _put_inside(tensor: TensorProto, raw: bytes) -> None:
    tensor.raw_data = raw
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def _parse(data: bytes, what: str) -> ModelProto:
    if not data:
        raise SippError(f"{what} is empty; export the model again")
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except google.protobuf.message.DecodeError as error:
        raise SippError(
            f"{what} is no ONNX model, or is truncated ({error}); "
            "check the download, or export the model again"
        ) from error
    if not proto.graph.node and not proto.graph.initializer:
        raise SippError(f"{what} holds no graph: it is no ONNX model, or an empty one")
    return proto


def _serialize(proto: ModelProto) -> bytes:
    try:
        return bytes(proto.SerializeToString())
    except (ValueError, google.protobuf.message.EncodeError) as error:
        raise SippError(
            f"the model cannot be serialised ({error}); models above 2 GB must keep their weights "
            "in external data"
        ) from error


def _temporary(folder: Path) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=".onnx-sipp-", suffix=".tmp", dir=folder)
    umask = os.umask(0)
    os.umask(umask)
    os.fchmod(descriptor, 0o666 & ~umask)  # as an ordinary new file, not mkstemp's 0600
    os.close(descriptor)
    return Path(name)


def _write_beside(folder: Path, data: bytes) -> Path:
    path = _temporary(folder)
    try:
        with path.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path
