"""A survey of the dense model: what it alone tells of every weight, before anything is pruned."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from onnx_sipp.calibration.execution import Execution
from onnx_sipp.progress import Progress, Silent
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.refitting.evidences import EvidenceMaker
from onnx_sipp.refitting.gathering import Gatherer
from onnx_sipp.refitting.grouping import fitting
from onnx_sipp.refitting.layer_sums import Sums
from onnx_sipp.refitting.runs import Runs
from onnx_sipp.refitting.sequential import Look
from onnx_sipp.refitting.staged import Staged
from onnx_sipp.threads import side_by_side

__all__ = ["DenseSurvey"]


@dataclass(frozen=True)
class DenseSurvey:
    """Gathers sums of the dense model, and makes evidence of them.

    Attributes:
        staged: the model and its stages.
        execution: how models are run.
        runs: of the model.
        gatherer: of sums.
        makes: evidence of them.
        shared: evidence of weights that layers share, by their index; known after `run`.
    """

    staged: Staged
    execution: Execution
    runs: Runs
    gatherer: Gatherer
    makes: EvidenceMaker
    shared: dict[int, Evidence]

    def run(self, look: Look, progress: Progress, *, together: bool = False) -> None:
        """Gather evidence for every weight from the dense model alone, summed over its layers.

        Args:
            look: called for every weight.
            progress: told after every stage.
            together: whether several calls may be made at a time.
        """
        juries, threads = self.staged.juries, self.execution.threads or 1
        limit = self.execution.memory.sums if together else 0

        def see(found: tuple[int, list[Sums]]) -> None:
            index, sums = found
            look(index, self.evidence(index, sums))

        def size(found: tuple[int, list[Sums]]) -> int:
            index, sums = found
            return len(sums) * juries[index].sums_bytes

        for group in fitting(self.sums(progress), size, limit):
            side_by_side(see, group, threads)

    def sums(
        self, progress: Progress, only: int | None = None
    ) -> Generator[tuple[int, list[Sums]], None, None]:
        """Gather the sums of every weight from the dense model alone.

        Args:
            progress: told after every stage.
            only: index of a single weight to do this for, None for all.

        Yields:
            Index of the weight, and per layer that sees it alike, its sums.
        """
        sums: dict[int, list[Sums]] = {}
        stages = self.staged.stages
        with closing(self.runs.of(self.staged.dense, dense=True, pruned=True)) as run:
            for stage in stages:
                tensors = run.advance()
                places = [place.jury for place in stage if only in (None, place.index)]
                for place, found in self.gatherer.observe(places, tensors, tensors):
                    index, weight = place.index, place.weight
                    if not weight.seen_alike(place.layer):
                        continue  # it has other inputs
                    sums.setdefault(index, []).append(found)
                    if len(sums[index]) == sum(map(weight.seen_alike, weight.layers)):
                        yield index, sums.pop(index)
                progress.advance(1, len(stages))

    def sums_of(self, index: int) -> list[Sums]:
        """The sums of one weight; see `sums`."""
        with closing(self.sums(Silent(), index)) as found:
            return next(found)[1]

    def evidence(self, index: int, sums: Sequence[Sums]) -> Evidence:
        """What the sums of a weight tell, nothing left out; kept for passes where layers share it.

        Args:
            index: of the weight.
            sums: see `sums`; they are used up.
        """
        jury = self.staged.juries[index]
        found = self.makes.of(jury, sums)
        if len(jury.weight.layers) > 1:
            self.shared[index] = found
        return found
