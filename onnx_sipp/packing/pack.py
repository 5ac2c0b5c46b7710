"""Pack a model: every tensor that gets smaller is rebuilt at load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from onnx_sipp.choices import VALUES
from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.tensors import payload_bytes
from onnx_sipp.graph.walk import main_opset
from onnx_sipp.packing.assembly import Assembled, Assembly
from onnx_sipp.packing.candidates import (
    LEAST_BYTES,
    Candidate,
    find_candidates,
    free_prefix,
)
from onnx_sipp.packing.chains import Chain, Piece, Shared, build
from onnx_sipp.packing.codes import Codes, kept_places
from onnx_sipp.packing.joining import (
    ENCODERS,
    LEAST_SHARE,
    MOST_JOINED,
    Part,
    by_encoding,
    joinable,
    joined,
    shares,
)
from onnx_sipp.packing.products import find_products
from onnx_sipp.packing.rebuild import rebuilt
from onnx_sipp.packing.record import Home, Record, is_packed, write_record
from onnx_sipp.packing.values import as_stored, relative_error
from onnx_sipp.report.packing import LeftTensor, PackedTensor, PackReport

__all__ = ["PackResult", "pack"]

_MOST_ELEMENTS = 2**31 - 1  # positions are int32


@dataclass(frozen=True)
class PackResult(Assembled):
    """A packed model.

    Attributes:
        report: what was packed, and what that saved.
    """

    report: PackReport


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
    small: list[Part] = []
    for candidate in candidates:
        try:
            part = packer.encoded(candidate)
            if part.stored.size <= MOST_JOINED and part.stored.scale is None:
                small.append(part)
            else:
                packer.add([part])
        except _Stays as reason:
            left.append(_left(candidate, str(reason)))
    for group in packer.best_groups(small):
        try:
            packer.add(group)
        except _Stays as reason:
            left += [_left(part.candidate, str(reason)) for part in group]
    if packer.packed:
        packer.rewrite()
    sizes = Assembly(source).size(), packer.assembly.size()
    return PackResult(packer.assembly, PackReport(values, packer.packed, left, *sizes))


def _left(candidate: Candidate, reason: str) -> LeftTensor:
    return LeftTensor(candidate.name, payload_bytes(candidate.tensor), reason)


class _Stays(Exception):  # noqa: N818 - no error: the reason why a tensor is not packed
    pass


class _Packer:
    def __init__(self, source: Model, values: str) -> None:
        self._source, self._values = source, values
        self.assembly = Assembly(source)
        self.packed: list[PackedTensor] = []
        self._prefix = free_prefix(source.proto)
        self._shared = Shared(self._prefix, main_opset(source.proto))
        self._nodes: list[NodeProto] = []
        self._tensors: list[TensorProto] = []
        self._used: set[str] = set()
        self._homes: list[Home] = []
        self._chains = 0

    def encoded(self, candidate: Candidate) -> Part:
        """A tensor in the type that it will be stored in.

        Raises:
            _Stays: it cannot be packed.
        """
        sites = self._source.sites
        original = sites.read(sites.of(candidate.tensor))
        if original.size > _MOST_ELEMENTS:
            raise _Stays("it has more elements than int32 can count")
        stored = as_stored(original, self._values)
        if stored is None:
            raise _Stays(f"elements of type {original.dtype} are not packed")
        places = kept_places(stored.elements, stored.usual)
        return Part(candidate, original, stored, places)

    def best_groups(self, parts: Sequence[Part]) -> list[list[Part]]:
        """Which small tensors to pack together, so that the file is the smallest."""
        groups = []
        for alike in joinable(parts):
            ways = [[alike], by_encoding(alike)]
            groups += min(ways, key=lambda way: sum(self._least(group)[0] for group in way))
        return groups

    def add(self, parts: Sequence[Part]) -> None:
        """Pack a tensor, or several small ones together.

        Raises:
            _Stays: it cannot be, or it does not pay.
        """
        size, encoding, chain = self._least(parts)
        homes = [part.candidate.home() for part in parts]
        size += sum(home.holder.ByteSize() * 4 // 3 for home in homes)  # in the record, as base64
        dense = sum(part.original.nbytes for part in parts)
        if dense - size < max(LEAST_BYTES, LEAST_SHARE * dense):
            kept, elements = (sum(n) for n in zip(*(p.counts for p in parts), strict=True))
            raise _Stays(f"{1 - kept / elements:.1%} zeros are too few to pay")
        errors = self._checked_errors(chain, parts)
        self._nodes += chain.nodes
        self._tensors += [self.assembly.tensor(*pair) for pair in chain.arrays.items()]
        self._used |= chain.shared
        self._homes += homes
        self._chains += 1
        for part, after, error in zip(parts, shares(size, parts), errors, strict=True):
            self.packed.append(
                PackedTensor(
                    part.candidate.name, list(part.original.shape), part.original.size,
                    part.places.size, encoding, str(part.stored.elements.dtype),
                    part.original.nbytes, after, error,
                )
            )  # fmt: skip

    def _least(self, parts: Sequence[Part]) -> tuple[int, str, Chain]:
        """The encoding that takes the fewest bytes, with these and its operators."""
        return min(self._options(parts), key=lambda option: option[0])

    def _options(self, parts: Sequence[Part]) -> Iterator[tuple[int, str, Chain]]:
        elements, places = joined(parts)
        pieces = [Piece(part.candidate.name, part.stored) for part in parts]
        for encoder in ENCODERS:
            codes: Codes = encoder(elements, parts[0].stored.usual, places)
            chain = build(codes, pieces, self._shared, self._chains)
            yield _bytes(chain), type(codes).__name__.lower(), chain

    def _checked_errors(self, chain: Chain, parts: Sequence[Part]) -> list[float]:
        """Rebuild tensors, and compare.

        Raises:
            _Stays: onnxruntime cannot rebuild one, or not to the bit.
        """
        nodes, tensors = self._shared.parts(chain.shared)
        nodes += chain.nodes
        tensors += [numpy_helper.from_array(array, name) for name, array in chain.arrays.items()]
        names = [part.candidate.name for part in parts]
        try:
            results = rebuilt(names, nodes, tensors, self._source.proto)
        except SippError as error:
            raise _Stays(f"it cannot be rebuilt: {error}") from error
        return [_error(*pair) for pair in zip(results, parts, strict=True)]

    def rewrite(self) -> None:
        """Put the operators in place of the tensors; scales that are products follow."""
        taken = {home.name for home in self._homes}
        for home, node in find_products(self._source.proto):
            if taken.isdisjoint((home.name, *node.input)):
                self._homes.append(home)
                self._nodes.append(node)
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


def _error(result: NDArray[Any], part: Part) -> float:
    """What a rebuilt tensor is off by.

    Raises:
        _Stays: it is another one, or should be exact and is not.
    """
    original = part.original
    if result.dtype != original.dtype or result.shape != original.shape:
        raise _Stays(f"it would be rebuilt as {result.dtype}{list(result.shape)}")
    loss = relative_error(result, original)
    if not part.stored.casts and loss:
        raise _Stays("it would not be rebuilt to the bit")
    return loss


def _bytes(chain: Chain) -> int:
    """Bytes that a chain takes in a file, but for the shared constants."""
    nodes = sum(node.ByteSize() + 3 for node in chain.nodes)
    return nodes + sum(
        values.nbytes + len(name) + 2 * values.ndim + 16 for name, values in chain.arrays.items()
    )
