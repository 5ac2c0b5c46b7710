"""Run models on samples: as a whole where their constants are small, else in segments."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.at_once import AT_ONCE, batch_threads
from onnx_sipp.calibration.batching import Batching, Tried, joined, plan_batching
from onnx_sipp.calibration.runner import Runner, is_large
from onnx_sipp.calibration.segments import SegmentedRun
from onnx_sipp.calibration.specs import Feed, InputSpec
from onnx_sipp.calibration.sweeps import StoredSweep, Sweep, WholeSweep
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.model import Model
from onnx_sipp.memory import Plan
from onnx_sipp.store import LiveTensors, TensorStore
from onnx_sipp.threads import hands

__all__ = ["Execution", "Tensors"]

Tensor = NDArray[Any]


@dataclass(frozen=True)
class Tensors:
    """What runs have told of tensors so far.

    Attributes:
        plans: how samples are joined, by names of the tensors and most samples at a time.
        shapes: for one feed, by name.
    """

    plans: dict[tuple[frozenset[str], int | None], Batching] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def copied(self) -> Tensors:
        """The same, to which nothing is added later."""
        return Tensors(dict(self.plans), dict(self.shapes))

    def take(self, other: Tensors) -> None:
        """Take in what others were told."""
        self.plans.update(other.plans)
        self.shapes.update(other.shapes)


@dataclass(frozen=True)
class Execution:
    """How models are run; all have the same inputs.

    Attributes:
        inputs: what the models take.
        store: holds tensors between the segments of a large model.
        threads: of the runtime.
        providers: of the runtime.
        batch_size: most samples at a time, None to choose.
        memory: how work is parted.
        known: of the tensors of the model that is pruned.
    """

    inputs: tuple[InputSpec, ...]
    store: TensorStore
    threads: int | None = None
    providers: Sequence[str] | None = None
    batch_size: int | None = None
    memory: Plan = field(default_factory=Plan)
    known: Tensors = field(default_factory=Tensors, repr=False)

    def whole(self, model: Model, stages: Sequence[Collection[str]]) -> Runner | None:
        """A session on a whole model, for `plan` and then `sweeps`; None if it is run in segments.

        Args:
            model: to run.
            stages: names of tensors, as for `sweeps`.
        """
        return None if len(stages) > 1 or is_large(model) else self.runner(model, stages[0])

    def plan(
        self,
        model: Model,
        stages: Sequence[Collection[str]],
        feeds: Iterable[Feed],
        whole: Runner | None = None,
    ) -> Batching:
        """Find out by running how samples can be joined so that tensors fall apart again.

        Args:
            model: to run.
            stages: names of tensors, in stages as for `sweeps`.
            feeds: the samples; later calls for the same tensors reuse what the first one found.
            whole: a session on the model, None to open one.

        Raises:
            SippError: the model fails on a single sample.
        """
        taps = frozenset().union(*stages)
        key, plans = (taps, self.batch_size), self.known.plans
        if key not in plans:
            first = list(islice(feeds, 2))
            tried = self._briefly(model, stages, whole)
            plans[key] = plan_batching(model, tried, self.inputs, first, self.batch_size)
        return plans[key]

    def sweeps(
        self,
        model: Model,
        stages: Sequence[Collection[str]],
        feeds: Iterable[Feed],
        batching: Batching,
        whole: Runner | None = None,
    ) -> Iterator[Sweep]:
        """Run samples past several stages, one after the other.

        Args:
            model: to run.
            stages: names of the tensors that each stage asks for; those of later stages are the
                same, or lie further on in the graph.
            feeds: the samples; iterated over once per sweep, or once in all.
            batching: planned for these tensors.
            whole: a session on the model, None to open one.

        Yields:
            Per stage its batches, to be gone through any number of times until the next stage.

        Raises:
            SippError: the runtime fails on an input.
        """
        if len(stages) == 1 and not is_large(model):
            runner = whole or self.runner(model, stages[0])
            yield WholeSweep(runner, feeds, batching, self.inputs)
            return
        counts: list[int] = []
        batched = _counted(joined(feeds, batching, self.inputs), counts)
        for tensors in self._in_segments(model, stages, batched):
            yield StoredSweep(tensors, counts, batching)

    def shapes(
        self, model: Model, names: Collection[str], feed: Feed
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of tensors for one feed; later calls reuse what the first one found.

        Raises:
            SippError: the runtime fails on it.
        """
        shapes = self.known.shapes
        if not shapes.keys() >= set(names):
            for (tensors,) in self._briefly(model, [names])([feed]):
                shapes.update({name: np.shape(tensors[name]) for name in names})
        return {name: shapes[name] for name in names}

    def outputs(self, model: Model, feeds: Sequence[Feed]) -> Iterator[Mapping[str, Tensor]]:
        """The outputs of a model for every feed.

        Raises:
            SippError: the runtime fails on an input.
        """
        if is_large(model):
            names = [value.name for value in model.proto.graph.output]
            for tensors in self._in_segments(model, [names], feeds):
                yield from tensors
        elif several := batch_threads(model, len(feeds), self.threads, self.providers):
            each = (self.threads or 1) // several
            run = Runner(model, threads=each, providers=self.providers).run
            with hands(min(len(feeds), AT_ONCE), several) as crew:
                yield from crew.map(run, feeds)
        else:
            yield from map(self.runner(model).run, feeds)

    def runner(
        self, model: Model, taps: Iterable[str] | None = None, *, brief: bool = False
    ) -> Runner:
        """A session on the whole model, or a brief one for a few samples."""
        names = None if taps is None else list(taps)
        threads, providers = self.threads, self.providers
        return Runner(model, names, threads=threads, providers=providers, brief=brief)

    def _briefly(
        self, model: Model, stages: Sequence[Collection[str]], whole: Runner | None = None
    ) -> Tried:
        """What runs a few samples past some stages; a session that is open already will do."""
        if is_large(model):
            return partial(self._in_segments, model, stages)
        taps = frozenset().union(*stages)
        return (whole or self.runner(model, taps, brief=True)).run_all

    def _in_segments(
        self, model: Model, stages: Sequence[Collection[str]], batches: Iterable[Feed]
    ) -> Iterator[list[Mapping[str, Tensor]]]:
        """Per stage, and per batch, the tensors that the stage asks for."""
        wanted = [set(names) for names in stages]
        held = ((batch, self.store) for batch in batches)
        run = SegmentedRun(
            model, Flow(model), wanted, held, self.store,
            threads=self.threads, providers=self.providers,
        )  # fmt: skip
        try:
            for names in wanted:
                yield [_Asked(live, names, model) for live in run.advance()]
        finally:
            run.close()


def _counted(pairs: Iterable[tuple[int, Feed]], counts: list[int]) -> Iterator[Feed]:
    for samples, feed in pairs:
        counts.append(samples)
        yield feed


class _Asked(Mapping[str, Tensor]):
    """Some of the tensors that are alive; each look-up may read a file."""

    def __init__(self, live: LiveTensors, names: Collection[str], model: Model) -> None:
        self._live, self._names, self._model = live, names, model

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._live[name] if name in self._live else self._model.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
