"""A model that is put together from another one: new tensors, old external ones, one data file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnx_sipp.files import Piece, refuse_place, write_together
from onnx_sipp.graph.external import external_reference
from onnx_sipp.graph.messages import serialized
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.tensors import is_external, packed_bytes, payload_bytes, write_inline
from onnx_sipp.graph.walk import all_sites, all_tensors
from onnx_sipp.slabs import as_bytes
from onnx_sipp.store import Kept, TensorStore, load

__all__ = ["Assembled", "Assembly"]

# New tensors below this many bytes are inside the message also where others are external.
INLINE_BYTES = 1024
_PAGE = 4096
_MEMORY = 64 << 20


class Assembly:
    """A copy of a model whose tensors may be added, removed and replaced.

    Every external tensor of ``proto`` has a token for its location: what it stands for is known
    here alone.

    Args:
        source: the model; is not changed.
    """

    def __init__(self, source: Model) -> None:
        self.proto = ModelProto()
        self.proto.CopyFrom(source.proto)
        self.external = bool(source.sites.external)
        self._source = source
        self._fresh: dict[str, Kept] = {}
        self._store = TensorStore(_MEMORY)
        for site, holder in enumerate(all_sites(self.proto)):
            if isinstance(holder, TensorProto) and is_external(holder):
                _refer(holder, f"old:{site}")

    def tensor(self, name: str, values: NDArray[Any]) -> TensorProto:
        """A new tensor, external if it is large and the model has external data."""
        if not self.external or values.nbytes < INLINE_BYTES:
            return numpy_helper.from_array(values, name)
        result = TensorProto(
            name=name, dims=values.shape, data_type=helper.np_dtype_to_tensor_dtype(values.dtype)
        )
        self.fill(result, values, external=True)
        return result

    def fill(self, tensor: TensorProto, values: NDArray[Any], *, external: bool) -> None:
        """Give a tensor its elements, in the field that it has, or outside of the message."""
        if not external:
            write_inline(tensor, values)
            return
        token = f"new:{len(self._fresh)}"
        self._fresh[token] = self._store.keep(values)
        tensor.data_location = TensorProto.EXTERNAL
        _refer(tensor, token)

    def inlined(self) -> ModelProto:
        """The message with all elements inside."""
        result = ModelProto()
        result.CopyFrom(self.proto)
        for tensor in all_tensors(result):
            if is_external(tensor):
                tensor.raw_data = packed_bytes(self._elements(tensor))
                tensor.ClearField("data_location")
                del tensor.external_data[:]
        return result

    def save(self, target: Path) -> int:
        """Write the model, with external data in ``<target>.data`` if it has any.

        Returns:
            Bytes written.

        Raises:
            UsageError: the target is an input, a folder, or in a missing or read-only folder.
            SippError: writing failed, or the message is larger than 2 GB; nothing is left behind.
        """
        self._source.refuse_target(target)
        data = target.with_name(f"{target.name}.data")
        placed = ModelProto()
        placed.CopyFrom(self.proto)
        size = self._place(placed, data.name)
        message = serialized(placed)
        pieces: list[Piece] = [(target, lambda out: out.write(message))]
        if size:
            refuse_place(data)
            pieces.insert(0, (data, partial(self._write, placed)))
        write_together(pieces)
        return size + len(message)

    def size(self) -> int:
        """Bytes that `save` will write, but for the name of the data file."""
        placed = ModelProto()
        placed.CopyFrom(self.proto)
        return self._place(placed, "") + placed.ByteSize()

    def _place(self, placed: ModelProto, location: str) -> int:
        """Give every external tensor of a copy its place in the data file; returns its size."""
        end = 0
        for tensor in _external(placed):
            length = payload_bytes(tensor)
            start = -(-end // _PAGE) * _PAGE if length >= _PAGE else end  # so it can be mapped
            _refer(tensor, location, offset=start, length=length)
            end = start + length
        return end

    def _write(self, placed: ModelProto, out: BinaryIO) -> None:
        for tensor, place in zip(_external(self.proto), _external(placed), strict=True):
            out.seek(external_reference(place).offset)
            _write_elements(self._elements(tensor), out)

    def _elements(self, tensor: TensorProto) -> NDArray[Any]:
        token = external_reference(tensor).location
        if token in self._fresh:
            return load(self._fresh[token])
        return self._source.sites.read(int(token.removeprefix("old:")))


def _external(proto: ModelProto) -> Iterator[TensorProto]:
    return (tensor for tensor in all_tensors(proto) if is_external(tensor))


def _write_elements(values: NDArray[Any], out: BinaryIO) -> None:
    if values.flags.c_contiguous and values.dtype.isbuiltin == 1 and values.size:
        out.write(as_bytes(values))  # mapped, not copied
    else:
        out.write(packed_bytes(values))


def _refer(tensor: TensorProto, location: str, **numbers: int) -> None:
    del tensor.external_data[:]
    tensor.external_data.add(key="location", value=location)
    for key, number in numbers.items():
        tensor.external_data.add(key=key, value=str(number))


@dataclass(frozen=True)
class Assembled:
    """What has been put together, to be had as a message or as a file."""

    _assembly: Assembly

    @property
    def model(self) -> ModelProto:
        """The model, external data included."""
        return self._assembly.inlined()

    def save(self, path: str | Path) -> int:
        """Write the model, whole or not at all; external data goes to ``<path>.data``.

        Returns:
            Bytes written.

        Raises:
            UsageError: the path is an input, a folder, or in a missing or read-only folder.
            SippError: writing failed.
        """
        return self._assembly.save(Path(path))
