"""Decides, layer by layer in graph order, which units go, and refits what reads the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.channels.plan import Coupling
from onnx_sipp.channels.survey import Found, best_units
from onnx_sipp.pruning.candidates import Proposal
from onnx_sipp.pruning.elimination import Reader, eliminated, ranked_by_sensitivity
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.mixing import Choice, settle

__all__ = ["UnitDecider"]

Float = NDArray[np.floating]


class UnitDecider:
    """See `sequential.Decider`.

    Args:
        coupling: of the groups.
        found: by group, what the survey of the dense model tells.
        counts: by group, how many units stay.
        threads: of the refits.
        gone: by group, units that are known to go, from an earlier pass.

    Attributes:
        gone: by group, the places of the units that go.
        ways: by group, the name of the way that chose them.
    """

    def __init__(
        self,
        coupling: Coupling,
        found: Mapping[int, Found],
        counts: Mapping[int, int],
        threads: int,
        gone: Mapping[int, NDArray[np.int64]] | None = None,
    ) -> None:
        self._coupling, self._found, self._counts = coupling, found, counts
        self._threads = threads
        self.gone = dict(gone or {})
        self.ways: dict[int, str] = {}

    def decide(self, index: int, evidence: Evidence) -> Choice:
        """Decide on a whole weight: which inputs it keeps."""
        return self._settled(index, evidence, evidence)

    def open(
        self, index: int, jury: Evidence, size: int, scores: Callable[[], Iterator[Float]]
    ) -> None:
        """Find out by its jury which inputs a weight keeps that comes in blocks."""
        del size, scores
        self._choose(index, jury)

    def decide_block(self, index: int, number: int, evidence: Evidence) -> Choice:
        """Decide on one block of the weight that was opened last."""
        del number
        return self._settled(index, evidence, None)

    def _settled(self, index: int, evidence: Evidence, judge: Evidence | None) -> Choice:
        if judge is not None:
            self._choose(index, judge)
        gone = self._coupling.numbers(self.gone)
        kept = self._coupling.kept(index, gone, evidence.weight.shape[1])
        return settle(evidence, Proposal(kept), "channels", threads=self._threads)

    def _choose(self, index: int, evidence: Evidence) -> None:
        """Choose from the groups that come to their first reader.

        A group with one reader is chosen from on what the pruned layers before it hand on; one
        with more on what the survey saw of all of them.
        """
        for number, count in self._counts.items():
            readers = self._coupling.readers[number]
            total = self._coupling.groups[number].count
            if number in self.gone or index not in readers:
                continue
            orders = self._found[number].orders
            way = "removal"
            if count == total:
                kept = np.arange(total)
            elif readers == (index,) and evidence.is_seen:
                reader = Reader(evidence, self._coupling.places(index, number))
                orders = {
                    "removal": eliminated([reader], total),
                    "sipp": ranked_by_sensitivity([reader], total),
                }
                kept, way, _ = best_units([reader], orders, count, self._threads)
            else:
                kept = orders[way].kept(count)
            self.gone[number] = np.setdiff1d(np.arange(total), kept)
            self.ways[number] = way
