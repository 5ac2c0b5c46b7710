"""Measure statistics once, for any number of runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_sipp.allocator import freed_memory_given_back
from onnx_sipp.checked import checked_options
from onnx_sipp.choices import PRUNE_ONLY
from onnx_sipp.cluster.hiring import hired
from onnx_sipp.errors import UsageError
from onnx_sipp.files import refuse_place
from onnx_sipp.graph.model import ModelSource
from onnx_sipp.keeping.statistics import About, write_statistics
from onnx_sipp.measures import Measured
from onnx_sipp.preparing import equipped, measure
from onnx_sipp.progress import Progress, Silent
from onnx_sipp.report.names import shown
from onnx_sipp.threads import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType

__all__ = ["Statistics", "calibrate"]


@dataclass(frozen=True, repr=False)
class Statistics:
    """What was measured of the weights of a model.

    Attributes:
        about: what it was measured on.
        layers: names of the layers.
        parameters: number of their weights.
        method: that it is for.
        warnings: what the user must know.
        seconds: that it took.
    """

    about: About
    layers: Sequence[str]
    parameters: int
    method: str
    warnings: Sequence[str]
    seconds: float
    _measured: Sequence[Measured]

    def save(self, path: str | Path) -> None:
        """Write it as ``.npz``, whole or not at all, for ``prune(…, statistics=path)``.

        Raises:
            UsageError: the path is a folder, or in a missing or read-only folder.
            SippError: writing failed.
        """
        refuse_place(Path(path))
        write_statistics(Path(path), self.about, self._measured)

    def __repr__(self) -> str:
        return f"<Statistics of {self.about.model_name or 'a model'}: {len(self.layers)} layers>"

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """What the command prints."""
        del console, options
        about = self.about
        yield (
            f"statistics of {len(self.layers)} layers with {self.parameters:,} weights, for "
            f"--method {self.method}"
        )
        yield (
            f"measured on {about.observed} of {about.samples} samples of {shown(about.source)}; "
            f"{about.held_out} are held out; {self.seconds:.1f} s"
        )
        for warning in self.warnings:
            yield f"warning: {shown(warning)}"


def calibrate(
    model: ModelSource,
    calibration: Any = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Statistics:
    """Measure the statistics of a model that `prune` and `sweep` need.

    Args:
        model: a path, the bytes of a model, or a ModelProto; it is never changed.
        calibration: sample inputs, as for `prune`.
        progress: listens to how far it is.
        **options: those of `prune` but for its goals: the method and which layers are pruned.

    Raises:
        UsageError: an option or argument makes no sense.
        SippError: the model or the data cannot be used.
    """
    given = [name for name in (*PRUNE_ONLY, "statistics") if options.get(name) is not None]
    if given:
        raise UsageError(f"to calibrate has no goal; leave {' and '.join(given)} out")
    chosen = checked_options(options)
    with one_blas_thread(), freed_memory_given_back(), hired(chosen.scheduler) as crew:
        found = equipped(model, calibration, chosen, progress or Silent(), crew)
        measured = measure(found)
    return Statistics(
        about=found.about(),
        layers=[layer.name for layer in found.findings.layers],
        parameters=sum(weight.size for weight in found.weights),
        method=chosen.method,
        warnings=[*found.samples.warnings, *found.lowered.plan.notes],
        seconds=time.perf_counter() - found.started,
        _measured=measured,
    )
