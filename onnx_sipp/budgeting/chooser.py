"""Decides on one weight after the other within the budget of a round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.options import Options
from onnx_sipp.pruning.blockwise_selection import shares_of_top
from onnx_sipp.pruning.candidates import CANDIDATES, Proposal
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.mixing import Choice, choose, settle
from onnx_sipp.pruning.selection import Mask

__all__ = ["Chooser"]

Float = NDArray[np.floating]


class Chooser:
    """See `sequential.Decider`.

    Args:
        options: of the run.
        round_: number of the round, from 1 on.
        by_neuron: per weight, whether every neuron keeps the same share.
        counts: per weight, how many of its units stay; or
        masks: gives, for a weight and the number of a block of it, which.
        candidates: by weight, those that are compared, where they are not those of the options.
    """

    def __init__(
        self,
        options: Options,
        round_: int,
        by_neuron: Sequence[bool],
        *,
        counts: Sequence[int] = (),
        masks: Callable[[int, int], Mask] | None = None,
        candidates: Mapping[int, tuple[str, ...]] | None = None,
    ) -> None:
        self._options, self._round, self._by_neuron = options, round_, by_neuron
        self._counts, self._masks = counts, masks
        self._candidates = tuple(options.candidates) or tuple(CANDIDATES)
        self._own_candidates = candidates or {}
        # Of the weight that comes in blocks: candidates, damping, and what each block keeps.
        self._open: tuple[tuple[str, ...], float | None, list[int]] = (), None, []

    def decide(self, index: int, evidence: Evidence) -> Choice:
        """Decide on a whole weight."""
        found = replace(evidence, by_neuron=self._by_neuron[index])
        if self._masks is not None:
            return self._settle(found, self._masks(index, 0))
        return self._choose(found, self._counts[index], self._names(index, evidence))

    def open(
        self, index: int, jury: Evidence, size: int, scores: Callable[[], Iterator[Float]]
    ) -> None:
        """Find out by its jury how to choose from a weight that comes in blocks."""
        if self._masks is not None:
            return
        keep = self._counts[index]
        names = self._names(index, jury)
        lead = self._choose(jury, round(keep * jury.units / size), names)
        self._open = (lead.candidate,), lead.damping or None, shares_of_top(scores, keep)

    def decide_block(self, index: int, number: int, evidence: Evidence) -> Choice:
        """Decide on one block of the weight that was opened last."""
        if self._masks is not None:
            return self._settle(evidence, self._masks(index, number))
        names, damping, shares = self._open
        return self._choose(evidence, shares[number], names, damping)

    def _names(self, index: int, evidence: Evidence) -> tuple[str, ...]:
        """Candidates to compare."""
        if not evidence.is_seen:
            return ("magnitude",)
        return self._own_candidates.get(index, self._candidates)

    def _settle(self, evidence: Evidence, kept: Mask) -> Choice:
        threads = self._options.thread_count
        given = self._options.masks is not None
        # Masks of the user's may keep weights that are zero, which no choice does.
        proposal = Proposal(kept & (evidence.weight != 0) if given else kept)
        name = "mask" if given else self._options.method
        return settle(evidence, proposal, name, threads=threads, refits=self._refits)

    def _choose(
        self, evidence: Evidence, keep: int, names: Sequence[str], damping: float | None = None
    ) -> Choice:
        options = self._options
        return choose(
            evidence,
            keep,
            options.seed + self._round,
            names=names,
            threads=options.thread_count,
            refits=self._refits,
            damping=damping,
        )

    @property
    def _refits(self) -> bool:
        return self._options.compensate != "none"
