"""The samples of a run: opened, checked, and parted into calibration and held-out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.held import Held
from onnx_sipp.calibration.rollout import RolloutSource
from onnx_sipp.calibration.runner import Runner
from onnx_sipp.calibration.sources import Source, held_out_mask, open_source
from onnx_sipp.calibration.specs import Feed, InputSpec, fix_shapes
from onnx_sipp.calibration.states import check_states, find_states
from onnx_sipp.errors import UsageError
from onnx_sipp.graph.model import Model
from onnx_sipp.store import TensorStore

__all__ = ["Chosen", "Samples", "open_samples"]

DEFAULT_SAMPLES = 512
# With fewer sequences than these, holding out whole ones would leave too little.
_MIN_SEQUENCES = 5
_NO_STATES = (
    "state_reset says after how many samples states begin anew, but no input is fed back "
    "from an output here; name such pairs (--state IN=OUT), or leave state_reset out"
)


@dataclass(frozen=True)
class Chosen:
    """Some of the feeds of a source, in their order; can be iterated over again."""

    source: Source
    mask: NDArray[np.bool_]

    def __iter__(self) -> Iterator[Feed]:
        pairs = zip(self.source, self.mask, strict=True)
        return (feed for feed, chosen in pairs if chosen)

    def __len__(self) -> int:
        return int(self.mask.sum())

    def at_most(self, count: int) -> Chosen:
        """The same feeds, or so many of them, evenly spread."""
        places = np.flatnonzero(self.mask)
        if len(places) <= count:
            return self
        mask = np.zeros_like(self.mask)
        mask[places[np.linspace(0, len(places) - 1, count).round().astype(np.intp)]] = True
        return Chosen(self.source, mask)

    def starts(self) -> list[bool]:
        """For each feed, whether the one before it in its sequence is missing."""
        return [
            index in self.source.restarts or index == 0 or not self.mask[index - 1]
            for index in np.flatnonzero(self.mask)
        ]


@dataclass(frozen=True)
class Samples:
    """What calibration learns from, and what it is judged by.

    Attributes:
        inputs: what the model takes.
        calibration: feeds for the statistics.
        held_out: feeds for fidelity; the same ones if there is a single sample.
        description: where they come from, for people.
        synthetic: True if they were made up.
        warnings: what the user must know.
        states: inputs that are fed back, and the outputs they come from.
        known: number of samples that statistics from a file are of, where these are others; None
            where they are the calibration samples.
    """

    inputs: tuple[InputSpec, ...]
    calibration: Chosen
    held_out: Chosen
    description: str
    synthetic: bool
    warnings: tuple[str, ...]
    states: Mapping[str, str] = field(default_factory=dict)
    known: int | None = None

    @property
    def learned_from(self) -> int:
        """How many samples were calibrated on."""
        return len(self.calibration) if self.known is None else self.known

    def at_most(self, count: int) -> Samples:
        """The same, or so many of them, with as large a share held out."""
        total = len(self.calibration) + len(self.held_out)
        if total <= count:
            return self
        held_out = max(1, count * len(self.held_out) // total)
        return replace(
            self,
            calibration=self.calibration.at_most(count - held_out),
            held_out=self.held_out.at_most(held_out),
            description=f"{self.description}, of which {count} are used",
        )

    def all_feeds(self) -> Source:
        """Calibration and held-out feeds, in their order."""
        return self.calibration.source


def open_samples(
    model: Model,
    calibration: Any,
    *,
    num_samples: int | None,
    seed: int,
    input_shapes: Mapping[str, tuple[int, ...]],
    providers: Sequence[str] | None,
    hold_out: bool = True,
    default_samples: int | None = DEFAULT_SAMPLES,
    states: Mapping[str, str] | None = None,
    state_reset: int | None = None,
    store: TensorStore | None = None,
) -> Samples:
    """Open the calibration data and check it against the model.

    Args:
        model: to calibrate.
        calibration: see `open_source`.
        num_samples: most feeds to use; None for the default.
        seed: of synthetic inputs.
        input_shapes: shapes of synthetic inputs, by name.
        providers: onnxruntime execution providers.
        hold_out: whether to keep a fifth of the samples for fidelity.
        default_samples: most feeds of given data to use if ``num_samples`` is None, None for all;
            of synthetic ones there are 32 then.
        states: inputs that are fed back from one sample to the next, and the outputs they come
            from; None to find them by their names.
        state_reset: samples in a sequence, at whose start the states are reset; None for files.
        store: holds the states, None for one with the default limit.

    Raises:
        UsageError: there is no such file, a state does not fit, or there is none to reset.
        SippError: the runtime refuses the model, or the data does not fit it.
    """
    specs, states = _inputs(model, states, providers)
    source: Source = open_source(
        calibration,
        [replace(spec, optional=spec.name in states) for spec in specs],
        model_path=model.path,
        num_samples=num_samples or (None if calibration is None else default_samples),
        seed=seed,
        input_shapes=input_shapes,
    )
    if states:
        runner = Runner(model, list(states.values()), providers=providers)
        fixed = fix_shapes(specs, input_shapes)
        source = RolloutSource(source, runner, fixed, states, store or TensorStore(), state_reset)
    elif state_reset is not None:
        raise UsageError(_NO_STATES)
    return _parted(Held(source), specs, states, hold_out=hold_out)


def _inputs(
    model: Model, states: Mapping[str, str] | None, providers: Sequence[str] | None
) -> tuple[tuple[InputSpec, ...], Mapping[str, str]]:
    """What a model takes, and which inputs are fed back from which outputs."""
    runner = Runner(model, [], providers=providers)
    specs = runner.inputs
    if states is None:
        return specs, find_states(specs, runner.outputs)
    check_states(states, specs, runner.outputs)
    return specs, states


def _parted(
    source: Source, specs: tuple[InputSpec, ...], states: Mapping[str, str], *, hold_out: bool
) -> Samples:
    """Part feeds into those for calibration and those held out, if any are to be."""
    held_out = np.zeros(len(source), np.bool_)
    if hold_out:
        held_out = _sequences_held_out(source) if states else held_out_mask(len(source))
    some = bool(held_out.any())
    return Samples(
        inputs=specs,
        calibration=Chosen(source, ~held_out),
        held_out=Chosen(source, held_out if some else ~held_out),
        description=source.description,
        synthetic=source.synthetic,
        warnings=_warnings(source, judged_alike=hold_out and not some),
        states=states,
    )


def _warnings(source: Source, *, judged_alike: bool) -> tuple[str, ...]:
    """What the user must know of the samples; also where the one that teaches judges, too."""
    warnings = list(source.notes)
    if source.synthetic:
        warnings.insert(
            0,
            "NO CALIBRATION DATA: the inputs are made up at random, so what is measured says "
            "little about your data; give real samples with --calib",
        )
    if judged_alike:
        warnings.append(
            "there is a single sample, so fidelity is measured on the sample that was calibrated "
            "on; give more samples"
        )
    return tuple(warnings)


def _sequences_held_out(source: Source) -> NDArray[np.bool_]:
    """Hold out whole sequences, or the end of the data: neighbouring steps are too much alike."""
    starts = source.restarts
    if len(starts) == len(source):
        return held_out_mask(len(source))
    if len(starts) < _MIN_SEQUENCES:
        return np.arange(len(source)) >= len(source) - max(1, round(len(source) * 0.2))
    lengths = np.diff([*starts, len(source)])
    return np.repeat(held_out_mask(len(starts)), lengths)
