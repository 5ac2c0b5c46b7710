"""The samples of a run in the batches that they are run in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from onnx_sipp.calibration.batching import Batching, grouped, join
from onnx_sipp.calibration.samples import Samples
from onnx_sipp.calibration.specs import Feed

__all__ = ["BatchRange", "Batches", "UnevenError"]


class UnevenError(Exception):
    """Samples differ in their number of patches, so that those of other batches are not known."""


@dataclass(frozen=True)
class BatchRange:
    """Some successive batches.

    Attributes:
        first: number of the first one.
        sizes: samples of every batch, these and all others.
    """

    first: int
    sizes: Sequence[int]

    def every(self, counts: Sequence[int]) -> list[int]:
        """Patches of every batch.

        Args:
            counts: patches of these.

        Raises:
            UnevenError: they have not the same number for every sample.
        """
        own = self.sizes[self.first : self.first + len(counts)]
        each = {divmod(count, size) for count, size in zip(counts, own, strict=True)}
        if len(each) > 1 or any(rest for _, rest in each):
            raise UnevenError
        return [each_of * size for size in self.sizes for each_of, _ in each]


@dataclass(frozen=True)
class Batches:
    """Samples as they are joined: those to calibrate on, then those held out.

    Attributes:
        samples: all of them.
        batching: how they are joined.
        seen: numbers of the batches that are looked at, None for all.
    """

    samples: Samples
    batching: Batching
    seen: range | None = None

    @property
    def sizes(self) -> list[int]:
        """Samples of every batch, seen or not."""
        return [len(group) for _, group in self._all()]

    @property
    def judges(self) -> list[bool]:
        """Of every batch that is seen, whether its samples are held out."""
        return [held_out for held_out, _ in self._seen()]

    def feeds(self, *, held_out_first: bool = False) -> Iterator[Feed]:
        """What is seen, every batch as one feed."""
        for _, feed in self.counted(held_out_first=held_out_first):
            yield feed

    def counted(self, *, held_out_first: bool = False) -> Iterator[tuple[int, Feed]]:
        """The same, each with the number of its samples."""
        for _, group in self._seen(held_out_first=held_out_first):
            yield len(group), join(group, self.samples.inputs)

    def _seen(self, *, held_out_first: bool = False) -> Iterator[tuple[bool, list[Feed]]]:
        every = self._all(held_out_first=held_out_first)
        return every if self.seen is None else islice(every, self.seen.start, self.seen.stop)

    def _all(self, *, held_out_first: bool = False) -> Iterator[tuple[bool, list[Feed]]]:
        """The feeds of every batch, and whether they are held out."""
        parts = [(self.samples.calibration, False), (self.samples.held_out, True)]
        if held_out_first:
            parts.reverse()
        for part, held_out in parts:
            for group in grouped(part, self.batching, self.samples.inputs):
                yield held_out, group
