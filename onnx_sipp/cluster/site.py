"""What a worker holds of a run: the model, the samples, and what is known of them so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.allocator import keep_freed_memory
from onnx_sipp.budgeting.known import Known
from onnx_sipp.budgeting.run import Run
from onnx_sipp.calibration.execution import Tensors
from onnx_sipp.calibration.samples import Chosen, Samples
from onnx_sipp.calibration.specs import Feed, InputSpec
from onnx_sipp.examining import found_in
from onnx_sipp.graph.messages import serialized
from onnx_sipp.graph.model import Model
from onnx_sipp.measures import Measured, PatchCount, Sensitivity
from onnx_sipp.memory import KEPT_BYTES
from onnx_sipp.options import Options
from onnx_sipp.prepared import Prepared
from onnx_sipp.progress import Silent
from onnx_sipp.refitting.refitter import Refitter
from onnx_sipp.store import TensorStore
from onnx_sipp.weights import Weight

__all__ = ["Payload", "Sensed", "Site", "Statistics"]

Mask = NDArray[np.bool_]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Feeds:
    """Samples in memory; see `calibration.sources.Source`."""

    feeds: Sequence[Feed]
    description: str
    synthetic: bool
    restarts: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.feeds)

    def __iter__(self) -> Iterator[Feed]:
        return iter(self.feeds)


@dataclass(frozen=True)
class Payload:
    """What is sent to every worker once.

    Attributes:
        model: the message of a model, or the path of one with external data, which every worker
            has to find there.
        feeds: all samples.
        inputs: what the model takes.
        calibration: which samples to calibrate on.
        held_out: which are held out.
        options: of the run.
        known: of the model's tensors so far.
    """

    model: bytes | Path
    feeds: Feeds
    inputs: tuple[InputSpec, ...]
    calibration: Mask
    held_out: Mask
    options: Options
    known: Tensors

    @classmethod
    def of(cls, found: Prepared) -> Payload:
        """What workers need to know of a run."""
        samples, source = found.samples, found.samples.all_feeds()
        feeds = Feeds(list(source), source.description, source.synthetic, source.restarts)
        path = found.dense.path
        external = found.dense.sites.external and path is not None
        return cls(
            model=path.resolve() if external and path else serialized(found.dense.proto),
            feeds=feeds,
            inputs=samples.inputs,
            calibration=samples.calibration.mask,
            held_out=samples.held_out.mask,
            options=replace(
                found.options, workdir=None, statistics=None, scheduler="", eval_script=None,
                max_drop=None, threads=found.options.thread_count,
            ),
            known=found.execution.known.copied(),
        )  # fmt: skip

    def samples(self) -> Samples:
        """The samples of the run."""
        return Samples(
            inputs=self.inputs,
            calibration=Chosen(self.feeds, self.calibration),
            held_out=Chosen(self.feeds, self.held_out),
            description=self.feeds.description,
            synthetic=self.feeds.synthetic,
            warnings=(),
        )


@dataclass(frozen=True)
class Sensed:
    """Statistics of a weight as workers need them; see `Measured`."""

    maximum: Float32
    mean: Float32 | None
    second_moment: NDArray[np.float64] | None
    counts: list[PatchCount]

    @classmethod
    def of(cls, found: Measured) -> Sensed:
        """What is known of it."""
        mean = None if found.mean is None else found.mean.whole()
        return cls(found.maximum.whole(), mean, found.second_moment, found.counts)

    def measured(self, weight: Weight, store: TensorStore) -> Measured:
        """The same of a worker's own weight.

        Args:
            weight: that it is of.
            store: keeps it.
        """
        maximum = Sensitivity.of_matrix(weight, "max", store, self.maximum)
        mean = None
        if self.mean is not None:
            mean = Sensitivity.of_matrix(weight, "mean", store, self.mean)
        return Measured(weight, maximum, mean, self.second_moment, self.counts)


@dataclass(frozen=True)
class Statistics:
    """What is known of a model before any layer is looked at.

    Attributes:
        weights: what was measured of each.
        known: of the model's tensors, by now.
    """

    weights: Sequence[Sensed]
    known: Tensors


class Site:
    """A worker's own copy of a run; what takes a while to make is made when it is asked for.

    Args:
        payload: what the run is about.
    """

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._one_at_a_time = Lock()
        self._prepared: Prepared | None = None
        self._refitter: Refitter | None = None
        self._run: Run | None = None

    def get_ready(self) -> None:
        """Make what needs no statistics in the background."""

        def make() -> None:
            with suppress(Exception):  # whoever needs it meets the same again
                self.prepared  # noqa: B018

        Thread(target=make).start()

    @property
    def prepared(self) -> Prepared:
        """The model with its layers; nothing is measured."""
        with self._one_at_a_time:
            if self._prepared is None:
                self._prepared = self._made()
            return self._prepared

    def _made(self) -> Prepared:
        told = self._payload
        libraries = [Path(library) for library in told.options.custom_ops]
        dense = Model.load(told.model, libraries)
        found = found_in(dense, told.samples, told.options, Silent(), told.known)
        if found.makes_large_arrays:
            keep_freed_memory()
        return found

    def refitter(self, statistics: Statistics) -> Refitter:
        """What passes over the layers.

        Args:
            statistics: of the model.
        """
        if self._refitter is None:
            found, store = self.prepared, TensorStore(KEPT_BYTES)
            found.execution.known.take(statistics.known)
            pairs = zip(found.weights, statistics.weights, strict=True)
            measured = [one.measured(weight, store) for weight, one in pairs]
            self._prepared = replace(found, measured=measured)
            self._refitter = self._prepared.refitter()
        return self._refitter

    def run(self, statistics: Statistics, known: Known) -> Run:
        """The run, as far as it is known.

        Args:
            statistics: of the model.
            known: of the model.
        """
        refitter, found = self.refitter(statistics), self.prepared
        if self._run is None:
            self._run = Run(
                refitter, found.weights, found.measured, found.samples, known.goal,
                found.options, Silent(), found.rules, known.share,
            )  # fmt: skip
        return self._run.knowing(known)
