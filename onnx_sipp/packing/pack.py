"""Pack a model: every tensor that gets smaller is rebuilt at load."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.tensors import payload_bytes
from onnx_sipp.options import VALUES
from onnx_sipp.packing.assembly import Assembly
from onnx_sipp.packing.candidates import LEAST_BYTES, Candidate, find_candidates, free_prefix
from onnx_sipp.packing.chains import Chain, Shared, build
from onnx_sipp.packing.codes import Codes, gaps_of, kept_places, mask_of, nibbles_of
from onnx_sipp.packing.rebuild import rebuilt
from onnx_sipp.packing.record import Home, Record, is_packed, write_record
from onnx_sipp.packing.values import Stored, as_stored, relative_error
from onnx_sipp.report.packing import LeftTensor, PackedTensor, PackReport

__all__ = ["PackResult", "pack"]

# Of its bytes, that a tensor must save to be packed.
LEAST_SHARE = 0.05
_MOST_ELEMENTS = 2**31 - 1  # positions are int32


@dataclass(frozen=True)
class PackResult:
    """A packed model.

    Attributes:
        report: what was packed, and what that saved.
    """

    report: PackReport
    _assembly: Assembly

    @property
    def model(self) -> ModelProto:
        """The packed model, external data included."""
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


def pack(model: Model | ModelProto | bytes | str | Path, *, values: str = "exact") -> PackResult:
    """Store the weights of a model as what is not zero and where, to be rebuilt at load.

    Ordinary operators rebuild them, which runtimes evaluate once, when they load the model. What
    does not get smaller stays as it is. Each tensor is rebuilt by onnxruntime here, and compared.

    Args:
        model: a path, the bytes of a model, or a ModelProto; it is never changed.
        values: how floating-point elements are stored: ``"exact"``, or with a loss that is
            reported as ``"fp16"`` or ``"int8"`` (one scale per slice of the first or last axis).

    Raises:
        UsageError: ``values`` is none of these, or the model is packed already.
        SippError: the model cannot be read.
    """
    if values not in VALUES:
        raise UsageError(f"values can be stored as {', '.join(VALUES)}, not {values!r}")
    source = Model.load(model)
    if is_packed(source.proto):
        raise UsageError("the model is packed already; unpack it first")
    packer = _Packer(source, values)
    candidates, left = find_candidates(source)
    for candidate in candidates:
        try:
            packer.add(candidate)
        except _Stays as reason:
            size = payload_bytes(candidate.tensor)
            left.append(LeftTensor(candidate.name, size, str(reason)))
    if packer.packed:
        packer.rewrite()
    sizes = Assembly(source).size(), packer.assembly.size()
    return PackResult(PackReport(values, packer.packed, left, *sizes), packer.assembly)


class _Stays(Exception):  # noqa: N818 - no error: the reason why a tensor is not packed
    pass


class _Packer:
    def __init__(self, source: Model, values: str) -> None:
        self._source, self._values = source, values
        self.assembly = Assembly(source)
        self.packed: list[PackedTensor] = []
        self._prefix = free_prefix(source.proto)
        self._shared = Shared(self._prefix)
        self._nodes: list[NodeProto] = []
        self._tensors: list[TensorProto] = []
        self._used: set[str] = set()
        self._homes: list[Home] = []

    def add(self, candidate: Candidate) -> None:
        """Pack a tensor.

        Raises:
            _Stays: it cannot be, or it does not pay.
        """
        original = self._source.read_site(self._source.site_of(candidate.tensor))
        if original.size > _MOST_ELEMENTS:
            raise _Stays("it has more elements than int32 can count")
        stored = as_stored(original, self._values)
        if stored is None:
            raise _Stays(f"elements of type {original.dtype} are not packed")
        places = kept_places(stored.elements, stored.usual)
        home = candidate.home()
        options = self._options(stored, places, candidate.name)
        size, encoding, chain = min(options, key=lambda option: option[0])
        size += home.holder.ByteSize() * 4 // 3  # in the record, as base64
        if original.nbytes - size < max(LEAST_BYTES, LEAST_SHARE * original.nbytes):
            raise _Stays(f"{1 - places.size / original.size:.1%} zeros are too few to pay")
        error = self._checked_error(chain, candidate.name, original, exact=not stored.casts)
        self._nodes += chain.nodes
        self._tensors += [self.assembly.tensor(*pair) for pair in chain.arrays.items()]
        self._used |= chain.shared
        self._homes.append(home)
        self.packed.append(
            PackedTensor(
                candidate.name, list(original.shape), original.size, places.size, encoding,
                str(stored.elements.dtype), original.nbytes, size, error,
            )
        )  # fmt: skip

    def _options(
        self, stored: Stored, places: NDArray[np.int64], name: str
    ) -> Iterator[tuple[int, str, Chain]]:
        """The ways to encode a tensor, each with the bytes that it takes."""
        for encoder in (mask_of, nibbles_of, gaps_of):
            codes: Codes = encoder(stored.elements, stored.usual, places)
            chain = build(codes, stored, name, self._shared, len(self.packed))
            yield _bytes(chain), type(codes).__name__.lower(), chain

    def _checked_error(
        self, chain: Chain, name: str, original: NDArray[Any], *, exact: bool
    ) -> float:
        """Rebuild a tensor, and compare.

        Raises:
            _Stays: onnxruntime cannot rebuild it, or not to the bit.
        """
        nodes, tensors = self._shared.parts(chain.shared)
        nodes += chain.nodes
        tensors += [numpy_helper.from_array(array, name) for name, array in chain.arrays.items()]
        try:
            result = rebuilt(name, nodes, tensors, self._source.proto)
        except SippError as error:
            raise _Stays(f"it cannot be rebuilt: {error}") from error
        if result.dtype != original.dtype or result.shape != original.shape:
            raise _Stays(f"it would be rebuilt as {result.dtype}{list(result.shape)}")
        loss = relative_error(result, original)
        if exact and loss:
            raise _Stays("it would not be rebuilt to the bit")
        return loss

    def rewrite(self) -> None:
        """Put the operators in place of the tensors."""
        graph = self.assembly.proto.graph
        constants = {home.index for home in self._homes if isinstance(home.holder, NodeProto)}
        gone = {home.index for home in self._homes if isinstance(home.holder, TensorProto)}
        nodes = [node for index, node in enumerate(graph.node) if index not in constants]
        kept = [tensor for index, tensor in enumerate(graph.initializer) if index not in gone]
        first, shared = self._shared.parts(self._used)
        del graph.node[:]
        graph.node.extend([*first, *self._nodes, *nodes])
        del graph.initializer[:]
        graph.initializer.extend([*kept, *shared, *self._tensors])
        write_record(self.assembly.proto, Record(self._prefix, self._homes))


def _bytes(chain: Chain) -> int:
    """Bytes that a chain takes in a file, but for the shared constants."""
    nodes = sum(node.ByteSize() + 3 for node in chain.nodes)
    return nodes + sum(
        values.nbytes + len(name) + 2 * values.ndim + 16 for name, values in chain.arrays.items()
    )
