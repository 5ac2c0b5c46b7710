"""How far to cut: which volume counts, and what share of it may stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.specs import Feed
from onnx_sipp.channels.latency import latency_ratio
from onnx_sipp.channels.plan import Coupling
from onnx_sipp.channels.surgery import cut_out
from onnx_sipp.channels.survey import Found
from onnx_sipp.errors import SippError
from onnx_sipp.graph.model import Model
from onnx_sipp.pruning.unit_budget import unit_budget

__all__ = ["Target", "UnitGoal"]

# Trials that the search for a latency takes.
_TRIALS = 7


@dataclass(frozen=True)
class UnitGoal:
    """What is asked for; one of the three.

    Attributes:
        macs: share of the multiply-adds that may stay.
        parameters: share of the parameters that may stay.
        latency: share of the time that a run may take, in onnxruntime.
        align: see `Group.counts`.
    """

    macs: float | None = None
    parameters: float | None = None
    latency: float | None = None
    align: int | None = None


class Target:
    """The goal in terms of counts of units.

    Args:
        goal: that was asked for.
        coupling: of the groups.
        free: groups that may lose units.
        providers: of the runtime that is timed.

    Attributes:
        limit: largest share of the volume; for a latency, known after `measure`.
    """

    def __init__(
        self,
        goal: UnitGoal,
        coupling: Coupling,
        free: Sequence[int],
        providers: Sequence[str] | None = None,
    ) -> None:
        self._providers = providers
        self._coupling, self._free = coupling, list(free)
        self._full = np.array([group.count for group in coupling.groups], np.float64)
        self._by_parameters, self.latency = goal.parameters is not None, goal.latency
        self._whole = self._volume(self._full)
        given = goal.parameters if self._by_parameters else goal.macs
        self.limit = 1.0 if given is None else given

    def share(self, counts: NDArray[np.float64]) -> float:
        """What counts of the free groups leave of the volume."""
        every = self._full.copy()
        every[self._free] = counts
        return self._volume(every) / self._whole

    def _volume(self, counts: NDArray[np.float64]) -> float:
        volumes = self._coupling.volumes
        return volumes.parameters(counts) if self._by_parameters else volumes.macs(counts)

    def measure(
        self,
        original: Model,
        found: Mapping[int, Found],
        feed: Feed,
        threads: int,
    ) -> None:
        """Find the share of multiply-adds that takes the wanted share of the time.

        Args:
            original: the dense model.
            found: by free group, its curve.
            feed: what it is timed on.
            threads: of the runtime.

        Raises:
            SippError: there is none.
        """
        assert self.latency is not None
        curves = [found[number].measured for number in self._free]
        low = self.share(np.array([curve.counts[-1] for curve in curves], np.float64))
        high, met = 1.0, False
        times: dict[tuple[int, ...], float] = {}
        # The smallest cut of all first: a goal that it misses cannot be had.
        for limit in [low, *(None,) * _TRIALS]:
            tried = (low + high) / 2 if limit is None else limit
            counts = tuple(unit_budget(curves, self.share, tried + 1e-9) or ())
            if counts not in times:
                times[counts] = self._time(original, found, counts, feed, threads)
            if times[counts] <= self.latency:
                low, met = tried, True
            elif not met:
                raise SippError(
                    f"no cut of this model takes {self.latency:.3f} of its time; the smallest "
                    f"takes {times[counts]:.3f}"
                )
            else:
                high = tried
        self.limit = low + 1e-9

    def _time(
        self,
        original: Model,
        found: Mapping[int, Found],
        counts: Sequence[int],
        feed: Feed,
        threads: int,
    ) -> float:
        gone = {
            number: found[number].orders["removal"].units[: found[number].local.counts[0] - count]
            for number, count in zip(self._free, counts, strict=True)
        }
        proto = cut_out(original, self._coupling.trace, self._coupling.numbers(gone))
        cut = Model(proto, original.path, original.libraries)
        return latency_ratio(original, cut, feed, threads, providers=self._providers)
