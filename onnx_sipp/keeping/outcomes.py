"""Passes of a refit in files: an interrupted run makes the same passes again, in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.keeping.archive import Archive, Member, understanding, write_archive
from onnx_sipp.keeping.folder import RunFolder
from onnx_sipp.outcome import Outcome, Refit, Settled
from onnx_sipp.rewriting import BlockWriter
from onnx_sipp.slabs import as_bytes
from onnx_sipp.store import TensorStore
from onnx_sipp.weights import Weight

__all__ = ["KeptOutcomes", "OutcomeForm"]

_FORM = "onnx-sipp pass 1"

# Reads an array by its name, shape and type.
Read = Callable[[str, Sequence[int], DTypeLike], NDArray[Any]]


class OutcomeForm:
    """How an outcome is told by plain data and arrays: by what differs from the model before.

    Args:
        dense: the model before.
        weights: that are pruned.
        biases: per weight, the constant that takes up a change of its bias, None if there is none.
        store: keeps new weights.
    """

    def __init__(
        self,
        dense: Lowered,
        weights: Sequence[Weight],
        biases: Sequence[str | None],
        store: TensorStore,
    ) -> None:
        self._dense, self._weights, self._biases, self._store = dense, weights, biases, store

    def header(self, outcome: Outcome) -> dict[str, Any]:
        """The plain data."""
        refits = [None if made.refit is None else asdict(made.refit) for made in outcome.settled]
        return {
            "refits": refits, "biases": dict(outcome.biases), "notes": list(outcome.notes),
            "rounds": outcome.rounds,
        }  # fmt: skip

    def members(self, outcome: Outcome) -> Iterator[Member]:
        """The arrays, one after the other."""
        for index, (weight, made) in enumerate(zip(self._weights, outcome.settled, strict=True)):
            yield Member.of(f"{index}.shift", made.shift)
            yield Member.of(f"{index}.sampled", made.sampled)
            for number, block in enumerate(weight.blocks):
                yield _stored(f"{index}.weight.{number}", block.stored_in(outcome.model))
            name = self._biases[index]
            if name is not None:
                yield _stored(f"{index}.bias", outcome.model.read(name))

    def outcome(self, header: Mapping[str, Any], read: Read) -> Outcome:
        """The outcome that was told.

        Args:
            header: see `header`.
            read: gives the arrays.
        """
        model = self._dense.copy(self._store)
        settled = [
            self._restored(read, model, index, refit)
            for index, refit in zip(range(len(self._weights)), header["refits"], strict=True)
        ]
        return Outcome(
            model, settled, biases=dict(header["biases"]), notes=tuple(header["notes"]),
            rounds=header["rounds"],
        )  # fmt: skip

    def _restored(
        self, read: Read, model: Lowered, index: int, refit: Mapping[str, Any] | None
    ) -> Settled:
        weight, writer = self._weights[index], BlockWriter(model)
        for number, block in enumerate(weight.blocks):
            before = block.stored_in(self._dense)
            writer.write(block, _read(read, f"{index}.weight.{number}", before))
        name = self._biases[index]
        if name is not None:
            model.replace(name, _read(read, f"{index}.bias", self._dense.read(name)))
        shape = weight.shape[:2]
        return Settled(
            read(f"{index}.shift", shape, np.float64),
            read(f"{index}.sampled", (2, *shape), np.bool_),
            None if refit is None else Refit(**refit),
        )


class KeptOutcomes:
    """The outcomes of the passes of a run, in their order.

    Args:
        folder: of the run.
        form: how they are told.
    """

    def __init__(self, folder: RunFolder, form: OutcomeForm) -> None:
        self._folder, self._form, self._count = folder, form, 0

    def or_made(self, told: Mapping[str, Any], make: Callable[[], Outcome]) -> Outcome:
        """The outcome of the next pass: read, if it was finished before, else made and kept.

        Args:
            told: what the pass is about, plain data.
            make: makes the pass.

        Raises:
            SippError: it cannot be made or kept.
        """
        name = f"pass-{self._count}.npz"
        self._count += 1
        found = self._folder.part(name, partial(self._read, told))
        if found is None:
            found = make()
            header = {"form": _FORM, "told": told, **self._form.header(found)}
            self._folder.keep(
                name, lambda path: write_archive(path, header, self._form.members(found))
            )
        return found

    def _read(self, told: Mapping[str, Any], path: Path) -> Outcome | None:
        archive = Archive(path, _FORM)
        with understanding(path):
            if archive.header["told"] != told:
                return None
            return self._form.outcome(archive.header, archive.read)


def _stored(name: str, value: NDArray[Any]) -> Member:
    """Elements of whatever type, some of which no file of numpy knows, as bytes."""
    return Member.of(name, np.frombuffer(as_bytes(np.ascontiguousarray(value)), np.uint8))


def _read(read: Read, name: str, like: NDArray[Any]) -> NDArray[Any]:
    raw = read(name, (like.nbytes,), np.uint8)
    return np.frombuffer(raw.tobytes(), like.dtype).reshape(like.shape)
