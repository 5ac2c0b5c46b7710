"""What workers do: functions of their site and of values, without any other state.

Each gives the same result wherever and however often it runs, so a lost one is simply repeated.
Values that it is given may be used by others too, and are not changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.budgeting.known import Known
from onnx_sipp.budgeting.looks import LayerLook
from onnx_sipp.calibration.samples import Chosen
from onnx_sipp.cluster.site import Sensed, Site, Statistics
from onnx_sipp.measures import Measured, PatchCount, measure_statistics, second_moment
from onnx_sipp.progress import Silent
from onnx_sipp.refitting.layer_sums import Sums
from onnx_sipp.statistics.moments import SecondMoment
from onnx_sipp.store import TensorStore
from onnx_sipp.weights import Weight

__all__ = [
    "Partial",
    "careful",
    "look",
    "merge_statistics",
    "merge_sums",
    "of_weight",
    "statistics",
    "sums",
    "trial",
]

Array = NDArray[Any]


@dataclass(frozen=True)
class Partial:
    """Statistics of one weight on some of the samples.

    Attributes:
        maximum: sensitivities, in the shape of the matrix.
        mean: likewise, None unless asked for.
        patches: of each layer, the most that a sample had.
        inputs: by layer name, sums behind the second moments, if they were asked for.
    """

    maximum: NDArray[np.float32]
    mean: NDArray[np.float32] | None
    patches: tuple[int, ...]
    inputs: dict[str, SecondMoment]

    @classmethod
    def of(cls, found: Measured) -> Partial:
        """What was measured."""
        return cls(
            found.maximum.whole(),
            None if found.mean is None else found.mean.whole(),
            tuple(count.most for count in found.counts),
            found.inputs,
        )

    def merged(self, other: Partial) -> Partial:
        """Those on the samples of both."""
        inputs = deepcopy(self.inputs)
        for name, seen in other.inputs.items():
            inputs[name].merge(seen)
        return Partial(
            np.maximum(self.maximum, other.maximum),
            None if self.mean is None or other.mean is None else np.maximum(self.mean, other.mean),
            tuple(map(max, self.patches, other.patches)),
            inputs,
        )

    def measured(self, weight: Weight, store: TensorStore) -> Measured:
        """The statistics of the weight; see `Sensed.measured`."""
        counts = [PatchCount(most) for most in self.patches]
        moments = second_moment(weight, self.inputs)
        return Sensed(self.maximum, self.mean, moments, counts).measured(weight, store)


def statistics(site: Site, samples: range) -> list[Partial]:
    """Measure the statistics of all weights on some of the samples.

    Args:
        site: of the worker.
        samples: by their number among those to be observed.
    """
    found = site.prepared
    mask = np.zeros_like(found.observed.mask)
    mask[np.flatnonzero(found.observed.mask)[samples.start : samples.stop]] = True
    run = found.observation(Chosen(found.observed.source, mask))
    store = TensorStore(sys.maxsize)  # what is sent is in memory anyhow
    measured = measure_statistics(found.weights, found.options.method, run, store)
    return [Partial.of(one) for one in measured]


def merge_statistics(site: Site, one: Sequence[Partial], other: Sequence[Partial]) -> list[Partial]:
    """Statistics on the samples of both."""
    del site
    return [a.merged(b) for a, b in zip(one, other, strict=True)]


def sums(site: Site, seen: Statistics, batches: range, sizes: Sequence[int]) -> list[list[Sums]]:
    """Gather the sums of all layers of the dense model over some batches.

    Args:
        site: of the worker.
        seen: statistics of the model.
        batches: their numbers.
        sizes: samples of all batches.

    Returns:
        Per weight, for each layer that sees it alike.

    Raises:
        UnevenError: samples differ in their number of patches.
    """
    part = site.refitter(seen).on_batches(batches, sizes)
    found = dict(part.survey.sums(Silent()))
    return [found[index] for index in range(len(found))]


def of_weight(site: Site, found: Sequence[list[Sums]], index: int) -> list[Sums]:
    """The sums of one weight."""
    del site
    return found[index]


def merge_sums(site: Site, one: Sequence[Sums], other: Sequence[Sums]) -> list[Sums]:
    """The sums of one weight over the batches of both."""
    del site
    made = deepcopy(list(one))
    for own, theirs in zip(made, other, strict=True):
        own.merge(theirs)
    return made


def look(
    site: Site,
    seen: Statistics,
    known: Known,
    index: int,
    found: Sequence[Sums] | None,
    alone: bool,
) -> LayerLook:
    """Look at one layer of the dense model; see `Surveyor.look`.

    Args:
        site: of the worker.
        seen: statistics of the model.
        known: of the model.
        index: of the weight.
        found: its sums, None to gather them here.
        alone: whether to prune it alone.
    """
    surveyor = site.run(seen, known).surveyor
    survey = surveyor.refitter.survey
    own = survey.sums_of(index) if found is None else deepcopy(list(found))
    return surveyor.look(index, survey.evidence(index, own), alone=alone)


def trial(site: Site, seen: Statistics, known: Known, plan: str) -> float:
    """Relative error of the outputs by a budget, in a pass that is short of care."""
    return site.run(seen, known).error_of(plan)


def careful(
    site: Site, seen: Statistics, known: Known, plan: str
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The outcome of a careful pass by a budget, as `OutcomeForm` tells it."""
    outcome = site.run(seen, known).passed(plan)
    form = site.refitter(seen).form
    arrays = {member.name: np.concatenate(list(member.pieces)) for member in form.members(outcome)}
    return form.header(outcome), arrays
