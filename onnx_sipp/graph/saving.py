"""Write a model, whole or not at all: external files are copied, but for payloads that are new."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from onnx import ModelProto, TensorProto

from onnx_sipp.errors import UsageError
from onnx_sipp.files import Piece, refuse_place, write_together
from onnx_sipp.graph.external import checked_file, external_reference, open_checked
from onnx_sipp.graph.messages import serialized
from onnx_sipp.graph.payloads import COPY_BYTES
from onnx_sipp.graph.sites import Sites
from onnx_sipp.graph.tensors import is_external, payload_bytes
from onnx_sipp.graph.walk import all_sites, all_tensors

__all__ = ["Saving"]

_PAGE = 4096


@dataclass(frozen=True)
class Saving:
    """What is written of a model.

    Attributes:
        proto: its message.
        sites: of it.
        files: that it came from.
    """

    proto: ModelProto
    sites: Sites
    files: Sequence[Path]

    def save(self, target: Path) -> None:
        """Write the model, with external data in ``<target>.data`` if it had any.

        Every file is written beside its place and renamed when all are complete, the model last.

        Raises:
            UsageError: the target is the file the model came from, or its folder does not exist.
            SippError: writing failed; nothing is left behind.
        """
        self.refuse_target(target)
        names = self._new_locations(target)
        moved = self._moved()
        data = serialized(self._relocated(names, moved))
        pieces: list[Piece] = [
            (target.parent / name, partial(self._write_external, location, moved))
            for location, name in names.items()
        ]
        write_together([*pieces, (target, lambda out: out.write(data))])

    def _relocated(self, names: dict[str, str], moved: dict[int, int]) -> ModelProto:
        """A copy of the message that refers to the data files of the output."""
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        for tensor in all_tensors(proto):
            if is_external(tensor):
                entries = {entry.key: entry.value for entry in tensor.external_data}
                entries["location"] = names[entries["location"]]
                entries.pop("checksum", None)  # of the old file
                _refer(tensor, entries)
        for site, holder in enumerate(all_sites(proto)):
            if site in moved and isinstance(holder, TensorProto):
                entries = {entry.key: entry.value for entry in holder.external_data}
                entries |= {"offset": str(moved[site]), "length": str(payload_bytes(holder))}
                _refer(holder, entries)
        return proto

    def _moved(self) -> dict[int, int]:
        """New offsets for replaced tensors whose bytes other tensors share: behind the others."""
        ranges = [(tensor, *self._range(tensor)) for tensor in self.sites.external]
        ends = {
            reference.location: checked_file(reference.location, self.sites.folder).stat().st_size
            for reference in map(external_reference, self.sites.external)
        }
        moved = {}
        for site in self.sites.replaced:
            tensor = self.sites.holders[site]
            assert isinstance(tensor, TensorProto)
            location, start, stop = self._range(tensor)
            if any(
                other is not tensor and where == location and first < stop and start < last
                for other, where, first, last in ranges
            ):
                moved[site] = -(-ends[location] // _PAGE) * _PAGE  # so that it can be mapped
                ends[location] = moved[site] + stop - start
        return moved

    def _range(self, tensor: TensorProto) -> tuple[str, int, int]:
        reference = external_reference(tensor)
        return reference.location, reference.offset, reference.offset + payload_bytes(tensor)

    def refuse_target(self, target: Path) -> None:
        """Check, before any work is done, that the model may be written there.

        Raises:
            UsageError: the target is an input file, a folder, or in a missing or read-only folder.
        """
        data = (target.parent / name for name in self._new_locations(target).values())
        for output in [target, *data]:
            refuse_place(output)
            if any(output.exists() and output.samefile(source) for source in self.files):
                raise UsageError(
                    f"{str(output)!r} would overwrite the input; an input is never changed, "
                    "so give another output name"
                )

    def _new_locations(self, target: Path) -> dict[str, str]:
        locations = dict.fromkeys(
            external_reference(tensor).location for tensor in self.sites.external
        )
        return {
            location: f"{target.name}.data" if index == 0 else f"{target.name}.{index}.data"
            for index, location in enumerate(locations)
        }

    def _write_external(self, location: str, moved: dict[int, int], out: BinaryIO) -> None:
        """Copy one external file, but for the payloads that are replaced."""
        starts: dict[int, int] = {}
        for site in self.sites.replaced:
            holder = self.sites.holders[site]
            assert isinstance(holder, TensorProto)
            reference = external_reference(holder)
            if reference.location == location:
                starts[site] = moved.get(site, reference.offset)
        with open_checked(location, self.sites.folder) as source:
            for site, start in sorted(starts.items(), key=lambda found: found[1]):
                _copy(source, out, start - source.tell())
                out.seek(start)  # there may be a gap behind the end of the source
                self.sites.replaced.write_to(site, out)
                source.seek(out.tell())
            shutil.copyfileobj(source, out, COPY_BYTES)


def _copy(source: BinaryIO, out: BinaryIO, size: int) -> None:
    """Copy so many bytes, or as many as there are."""
    while size > 0 and (data := source.read(min(size, COPY_BYTES))):
        out.write(data)
        size -= len(data)


def _refer(tensor: TensorProto, entries: dict[str, str]) -> None:
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
