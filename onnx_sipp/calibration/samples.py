"""The samples of a run: opened, checked, and parted into calibration and held-out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.runner import Runner
from onnx_sipp.calibration.sources import Source, held_out_mask, open_source
from onnx_sipp.calibration.specs import Feed
from onnx_sipp.graph.model import Model

__all__ = ["Chosen", "Samples", "open_samples"]

DEFAULT_SAMPLES = 512


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


@dataclass(frozen=True)
class Samples:
    """What calibration learns from, and what it is judged by.

    Attributes:
        calibration: feeds for the statistics.
        held_out: feeds for fidelity; the same ones if there is a single sample.
        description: where they come from, for people.
        synthetic: True if they were made up.
        warnings: what the user must know.
    """

    calibration: Chosen
    held_out: Chosen
    description: str
    synthetic: bool
    warnings: tuple[str, ...]


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

    Raises:
        UsageError: there is no such file.
        SippError: the runtime refuses the model, or the data does not fit it.
    """
    specs = Runner(model, [], providers=providers).inputs
    source = open_source(
        calibration,
        specs,
        model_path=model.path,
        num_samples=num_samples or (None if calibration is None else default_samples),
        seed=seed,
        input_shapes=input_shapes,
    )
    held_out = held_out_mask(len(source)) if hold_out else np.zeros(len(source), np.bool_)
    warnings = list(source.notes)
    if source.synthetic:
        warnings.insert(
            0,
            "NO CALIBRATION DATA: the inputs are made up at random, so what is measured says "
            "little about your data; give real samples with --calib",
        )
    if hold_out and not held_out.any():
        warnings.append(
            "there is a single sample, so fidelity is measured on the sample that was calibrated "
            "on; give more samples"
        )
    return Samples(
        calibration=Chosen(source, ~held_out),
        held_out=Chosen(source, held_out if held_out.any() else ~held_out),
        description=source.description,
        synthetic=source.synthetic,
        warnings=tuple(warnings),
    )
