"""Sweeps: batches of the tensors that are asked for, to be gone through any number of times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from onnx_sipp.calibration.batching import Batch, Batching, batches
from onnx_sipp.calibration.runner import Runner
from onnx_sipp.calibration.specs import Feed, InputSpec

__all__ = ["StoredSweep", "Sweep", "WholeSweep"]

Sweep = Iterable[Batch]
Tensor = NDArray[Any]


@dataclass(frozen=True)
class WholeSweep:
    """Runs the whole model for every batch.

    Attributes:
        runner: of the model.
        feeds: the samples.
        batching: planned for the tensors that are asked for.
        inputs: what the model takes.
    """

    runner: Runner
    feeds: Iterable[Feed]
    batching: Batching
    inputs: Sequence[InputSpec]

    def __iter__(self) -> Iterator[Batch]:
        return batches(self.runner, self.feeds, self.batching, self.inputs)


@dataclass(frozen=True)
class StoredSweep:
    """Reads what a stage has left.

    Attributes:
        tensors: of every batch.
        counts: samples of every batch.
        batching: by which they were joined.
    """

    tensors: Sequence[Mapping[str, Tensor]]
    counts: Sequence[int]
    batching: Batching

    def __iter__(self) -> Iterator[Batch]:
        for samples, tensors in zip(self.counts, self.tensors, strict=True):
            yield Batch(samples, _Separated(tensors, self.batching, samples))


class _Separated(Mapping[str, Tensor]):
    """Tensors of a batch, told apart by sample when they are looked up."""

    def __init__(self, tensors: Mapping[str, Tensor], batching: Batching, samples: int) -> None:
        self._tensors, self._batching, self._samples = tensors, batching, samples

    def __getitem__(self, name: str) -> Tensor:
        return self._batching.separate(name, self._tensors[name], self._samples)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
