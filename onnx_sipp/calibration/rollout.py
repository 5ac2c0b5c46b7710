"""Samples of a model with states: run in order, each state fed back from the step before."""

from __future__ import annotations

__all__ = ["RolloutSource"]

from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_sipp.errors import SippError
from onnx_sipp.store import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from onnx_sipp.calibration.runner import Runner
    from onnx_sipp.calibration.sources import Source
    from onnx_sipp.calibration.specs import Array, Feed, InputSpec
    from onnx_sipp.store import TensorStore

_ALONE = (
    "every sample is a sequence by itself, so no state is ever fed back: put the samples of a "
    "sequence into one file, or say how many make one (--state-reset)"
)


class RolloutSource:
    """The feeds of a source, completed by the states that the model has when they come.

    A sequence begins with the first feed, and where the source or ``reset`` says so. Its states
    begin with the values that come with the first feed, or with zeros. A feed that brings a state
    is fed that.

    Attributes:
        description: What the data is, for people.
        synthetic: Whether it is made up.
        notes: What the user must be told.
        restarts: The feeds with which a sequence begins.
    """

    def __init__(
        self,
        source: Source,
        runner: Runner,
        specs: Sequence[InputSpec],
        states: Mapping[str, str],
        store: TensorStore,
        reset: int | None = None,
    ) -> None:
        """Run all feeds once and record the states.

        Args:
            source: Feeds that may lack the states.
            runner: Of the model, with the outputs that are fed back among its taps.
            specs: The inputs of the model.
            states: Names of outputs by names of inputs.
            store: Holds the states.
            reset: The number of feeds in a sequence; None as the source has it.

        Raises:
            SippError: If the model fails on a feed, or a state is no longer finite.
        """
        self._source, self._states, self._store = source, states, store
        self._specs = {spec.name: spec for spec in specs}
        starts = range(0, len(source), reset) if reset else source.restarts
        self._starts = {0, *starts}
        self._recorded = self._record(runner)
        self.restarts = tuple(sorted(self._starts))
        lacking = any(self._recorded)
        fed_back = ", ".join(f"{name} fed back from {made}" for name, made in states.items())
        count = f"{len(self.restarts)} sequence{'s' if len(self.restarts) > 1 else ''}"
        extra = f", {count}, {fed_back}" if lacking else ""
        self.description = source.description + extra
        self.synthetic = source.synthetic
        self.notes = source.notes
        if lacking and len(self.restarts) == len(source) > 1:
            self.notes += (_ALONE,)

    def _record(self, runner: Runner) -> list[dict[str, Any]]:
        """The states that each feed lacks."""
        recorded: list[dict[str, Any]] = []
        first: Feed = {}
        current: Feed = {}
        for index, feed in enumerate(self._source):
            given = {name: feed[name] for name in self._states if name in feed}
            if index == 0:
                first = {name: given.get(name, self._zeros(name, feed)) for name in self._states}
            if len(given) == len(self._states):
                self._starts.add(index)
            state = first if index in self._starts else current
            lacking = {name: state[name] for name in self._states if name not in given}
            recorded.append({name: self._store.keep(value) for name, value in lacking.items()})
            made = runner.run(self._ordered(feed | lacking))
            current = {name: made[output] for name, output in self._states.items()}
            for name, value in current.items():
                if value.dtype.kind in "fV" and not np.isfinite(value.astype(np.float32)).all():
                    raise SippError(
                        f"the state {name!r} is not finite after sample {index}; check the scaling "
                        "of the data, and that its samples are in order"
                    )
        return recorded

    def _zeros(self, name: str, feed: Feed) -> Array:
        """A state of zeros; a size left open is that of the symbol in another input, else 1."""
        spec = self._specs[name]
        if spec.shape is None:
            raise SippError(
                f"the state {name!r} has no declared shape; give its first value with the data"
            )
        sizes: dict[str, int] = {}
        for other, value in feed.items():
            for dim, size in zip(self._specs[other].shape or (), value.shape, strict=False):
                if isinstance(dim, str):
                    sizes.setdefault(dim, size)
        shape = [dim if isinstance(dim, int) else sizes.get(dim or "", 1) for dim in spec.shape]
        return np.zeros(shape, spec.dtype)

    def _ordered(self, feed: Feed) -> Feed:
        return {name: feed[name] for name in self._specs}

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Feed]:
        for feed, lacking in zip(self._source, self._recorded, strict=True):
            states = {name: load(kept) for name, kept in lacking.items()}
            yield self._ordered(feed | states)
