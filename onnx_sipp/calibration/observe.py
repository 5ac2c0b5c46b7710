"""Stream the inputs of layers past accumulators: one pass over the samples, bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from onnx_sipp.allocator import release_memory
from onnx_sipp.calibration.batching import Batch
from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.samples import Chosen
from onnx_sipp.calibration.sweeps import Sweep
from onnx_sipp.errors import SippError
from onnx_sipp.graph.layers import Layer
from onnx_sipp.graph.model import Model
from onnx_sipp.progress import Progress
from onnx_sipp.threads import Hands, hands
from onnx_sipp.unfolding.base import (
    MatMulUnfolding,
    Patches,
    Unfolding,
    pieces,
    without_padding,
)

__all__ = ["Accumulator", "Observation", "Watch", "observe"]


class Accumulator(Protocol):
    """Anything that gathers patches."""

    def update(self, patches: Patches) -> None:
        """Take in the patches of some samples."""
        ...


class _Fork:
    """One unfolding of one tensor, and all who want its patches."""

    def __init__(self, tensor: str, unfolding: Unfolding, layer: str, mask: str | None) -> None:
        self.tensor, self.unfolding, self.layer, self.mask = tensor, unfolding, layer, mask
        self.accumulators: list[Accumulator] = []

    def feed(self, batch: Batch, spread: Hands) -> None:
        """Show a batch to the accumulators, side by side as far as there are hands."""
        activation = batch.tensors[self.tensor]
        if activation.dtype.kind not in "fV":
            raise SippError(
                f"the input {self.tensor!r} of layer {self.layer!r} is {activation.dtype}, "
                "not floating point; exclude the layer"
            )
        with np.errstate(over="ignore"):
            activation = activation.astype(np.float32, copy=False)
        if not np.isfinite(activation).all():
            raise SippError(
                f"the input {self.tensor!r} of layer {self.layer!r} is not finite: the model "
                "overflows on the calibration data; check its scaling"
            )
        if self.mask is not None and isinstance(self.unfolding, MatMulUnfolding):
            mask = batch.tensors[self.mask][0] != 0
            activation = without_padding(activation[0], mask)[None]
        for patches in pieces(self.unfolding, activation):
            list(spread.map(partial(_show, patches), self.accumulators))


def _show(patches: Patches, accumulator: Accumulator) -> None:
    accumulator.update(patches)


@dataclass(frozen=True)
class Observation:
    """How to run samples past accumulators.

    Attributes:
        execution: how models are run.
        model: to run.
        feeds: the samples.
        threads: layers worked on at the same time.
        progress: told how far it is.
        mask: name of an input that tells padding from data, None if there is none; samples then go
            one at a time.
    """

    execution: Execution
    model: Model
    feeds: Chosen
    threads: int
    progress: Progress
    mask: str | None = None


A = TypeVar("A", bound=Accumulator)


@dataclass(frozen=True)
class Watch(Generic[A]):
    """One layer, or some neurons of one, to observe.

    Attributes:
        layer: to observe.
        size: bytes that its accumulators take.
        begin: makes the accumulators.
        end: called with them once they have seen all samples.
    """

    layer: Layer
    size: int
    begin: Callable[[], Sequence[A]]
    end: Callable[[Sequence[A]], None]


def observe(how: Observation, watches: Sequence[Watch[Any]]) -> None:
    """Run the samples and show every layer's patches to its accumulators.

    Every accumulator sees the samples in order, whatever the number of threads. Accumulators that
    do not fit into memory all at once come one group after the other, in the order of the graph.

    Args:
        how: the model, its samples, and with how many threads.
        watches: in graph order.

    Raises:
        SippError: the runtime fails on an input, or a layer's input is not finite.
    """
    groups = _groups(watches, how.execution.memory.sums)
    stages = [_taps(group, how.mask) for group in groups]
    execution = how.execution if how.mask is None else replace(how.execution, batch_size=1)
    whole = execution.whole(how.model, stages)
    batching = execution.plan(how.model, stages, how.feeds, whole)
    sweeps = execution.sweeps(how.model, stages, how.feeds, batching, whole)
    for group, sweep in zip(groups, sweeps, strict=True):
        _observe_group(how, group, sweep, len(how.feeds) * len(groups))


def _groups(watches: Sequence[Watch[Any]], limit: int) -> list[list[Watch[Any]]]:
    groups: list[list[Watch[Any]]] = []
    size = 0
    for watch in watches:
        if not groups or size + watch.size > limit:
            groups.append([])
            size = 0
        groups[-1].append(watch)
        size += watch.size
    return groups


def _taps(group: Sequence[Watch[Any]], mask: str | None) -> list[str]:
    names = [watch.layer.activation for watch in group]
    return list(dict.fromkeys(names if mask is None else [*names, mask]))


def _observe_group(
    how: Observation,
    group: Sequence[Watch[Any]],
    sweep: Sweep,
    total: int,
) -> None:
    forks: dict[tuple[str, Unfolding], _Fork] = {}
    sizes: dict[tuple[str, Unfolding], int] = {}
    accumulators = [watch.begin() for watch in group]
    for watch, own in zip(group, accumulators, strict=True):
        layer = watch.layer
        key = (layer.activation, layer.unfolding)
        fork = forks.setdefault(key, _Fork(layer.activation, layer.unfolding, layer.name, how.mask))
        fork.accumulators.extend(own)
        sizes[key] = sizes.get(key, 0) + watch.size
    most = max(len(forks), *(len(fork.accumulators) for fork in forks.values()))
    for batch in sweep:
        with hands(most, how.threads) as crew:
            # Neurons of layers that are wider than all others together are spread over the threads.
            wide = [key for key, size in sizes.items() if size * crew.count > sum(sizes.values())]
            for key in wide:
                forks[key].feed(batch, crew)
            others = [fork for key, fork in forks.items() if key not in wide]
            list(crew.map(partial(_Fork.feed, batch=batch, spread=Hands(1, map)), others))
        how.progress.advance(batch.samples, total)
    for watch, own in zip(group, accumulators, strict=True):
        watch.end(own)
    del accumulators, forks
    release_memory(sum(watch.size for watch in group))
