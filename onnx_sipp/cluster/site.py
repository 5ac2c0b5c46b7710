"""What a worker holds of a run: the model, the samples, and what is known of them so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.samples import Chosen, Samples
from onnx_sipp.calibration.specs import Feed, InputSpec
from onnx_sipp.compensate import Run
from onnx_sipp.graph.messages import serialized
from onnx_sipp.graph.model import Model
from onnx_sipp.known import Known
from onnx_sipp.layer_sums import Sums
from onnx_sipp.measures import Measured, PatchCount, Sensitivity
from onnx_sipp.options import Options
from onnx_sipp.prepared import KEPT_BYTES, Prepared, found_in
from onnx_sipp.progress import Silent
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.sequential import Refitter
from onnx_sipp.store import TensorStore

__all__ = ["Payload", "Sensed", "Site"]

Mask = NDArray[np.bool_]


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
    """

    model: bytes | Path
    feeds: Feeds
    inputs: tuple[InputSpec, ...]
    calibration: Mask
    held_out: Mask
    options: Options

    @classmethod
    def of(cls, found: Prepared) -> Payload:
        """What workers need to know of a run."""
        samples, source = found.samples, found.samples.all_feeds()
        feeds = Feeds(list(source), source.description, source.synthetic, source.restarts)
        path = found.dense.path
        external = found.dense.external and path is not None
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
    """Statistics of all weights as refits need them: sensitivities, and patches of the layers."""

    maximum: Sequence[NDArray[np.float32]]
    patches: Sequence[Sequence[int]]

    @classmethod
    def of(cls, measured: Sequence[Measured]) -> Sensed:
        """What is known of weights."""
        return cls(
            [found.maximum.whole() for found in measured],
            [[count.most for count in found.counts] for found in measured],
        )


class Site:
    """A worker's own copy of a run; what takes a while to make is made when it is asked for.

    Args:
        payload: what the run is about.
    """

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._refitter: Refitter | None = None
        self._run: Run | None = None
        self._evidence: tuple[Known, Sequence[Sums], Evidence] | None = None

    @cached_property
    def prepared(self) -> Prepared:
        """The model with its layers; nothing is measured."""
        libraries = [Path(library) for library in self._payload.options.custom_ops]
        dense = Model.load(self._payload.model, libraries)
        return found_in(dense, self._payload.samples, self._payload.options, Silent())

    def refitter(self, sensed: Sensed) -> Refitter:
        """What passes over the layers."""
        if self._refitter is None:
            store = TensorStore(KEPT_BYTES)
            measured = [
                Measured(
                    weight,
                    Sensitivity.of_blocks(weight, "max", store, [maximum]),
                    counts=[PatchCount(most) for most in patches],
                )
                for weight, maximum, patches in zip(
                    self.prepared.weights, sensed.maximum, sensed.patches, strict=True
                )
            ]
            self.prepared = replace(self.prepared, measured=measured)
            self._refitter = self.prepared.refitter()
        return self._refitter

    def evidence(self, run: Run, known: Known, index: int, sums: Sequence[Sums]) -> Evidence:
        """Evidence of a weight; that of the last one is kept, as several tasks ask for it.

        Args:
            run: as far as it is known.
            known: the same.
            index: of the weight.
            sums: of its layers.
        """
        kept = self._evidence
        if kept is None or kept[0] is not known or kept[1] is not sums:
            self._evidence = None  # there is room for one only
            kept = known, sums, run.evidence(index, deepcopy(list(sums)))
            self._evidence = kept
        return kept[2]

    def run(self, sensed: Sensed, known: Known) -> Run:
        """The run, as far as it is known."""
        refitter, found = self.refitter(sensed), self.prepared
        if self._run is None:
            self._run = Run(
                refitter, found.weights, found.measured, found.samples, known.goal,
                found.options, Silent(), found.rules, known.share,
            )  # fmt: skip
        return self._run.knowing(known)
