"""Stream the inputs of layers past accumulators: one pass over the samples, bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol

import numpy as np

from onnx_sipp.calibration.runner import Batch, Runner, batches, plan_batching
from onnx_sipp.calibration.samples import Chosen
from onnx_sipp.errors import SippError
from onnx_sipp.graph.layers import Layer
from onnx_sipp.progress import Progress
from onnx_sipp.threads import blas_threads
from onnx_sipp.unfolding import (
    MatMulUnfolding,
    Patches,
    Unfolding,
    pieces,
    without_padding,
)

__all__ = ["Accumulator", "Observation", "observe"]


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

    def feed(self, batch: Batch, pool: ThreadPoolExecutor | None = None) -> None:
        """Show a batch to the accumulators, side by side if there is a pool."""
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
            # list() so that exceptions of the workers arrive here
            spread = map if pool is None else pool.map
            list(spread(partial(_show, patches), self.accumulators))


def _show(patches: Patches, accumulator: Accumulator) -> None:
    accumulator.update(patches)


@dataclass(frozen=True)
class Observation:
    """How to run samples past accumulators.

    Attributes:
        runner: whose taps include the activations of the layers.
        feeds: the samples.
        batch_size: most samples at a time, None to choose.
        mask: name of an input that tells padding from data, None if there is none; samples then go
            one at a time.
        threads: layers worked on at the same time.
        progress: told how far it is.
    """

    runner: Runner
    feeds: Chosen
    batch_size: int | None
    threads: int
    progress: Progress
    mask: str | None = None


def observe(
    how: Observation, layers: Sequence[Layer], accumulators: Mapping[str, Sequence[Accumulator]]
) -> None:
    """Run the samples and show every layer's patches to its accumulators.

    Every accumulator sees the samples in order, whatever the number of threads.

    Args:
        how: the runner, its samples, and with how many threads.
        layers: to observe.
        accumulators: by layer name.

    Raises:
        SippError: the runtime fails on an input, or a layer's input is not finite.
    """
    forks: dict[tuple[str, Unfolding], _Fork] = {}
    for layer in layers:
        key = (layer.activation, layer.unfolding)
        fork = forks.setdefault(key, _Fork(layer.activation, layer.unfolding, layer.name, how.mask))
        fork.accumulators.extend(accumulators[layer.name])
    largest = how.batch_size if how.mask is None else 1
    batching = plan_batching(how.runner, list(islice(how.feeds, 2)), largest)
    with blas_threads(1), ThreadPoolExecutor(max_workers=how.threads) as pool:
        for batch in batches(how.runner, how.feeds, batching):
            if len(forks) >= how.threads:
                list(pool.map(lambda fork, b=batch: fork.feed(b), forks.values()))
            else:  # a few wide layers: their neurons are spread over the threads instead
                for fork in forks.values():
                    fork.feed(batch, pool)
            how.progress.advance(batch.samples, len(how.feeds))
