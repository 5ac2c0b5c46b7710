"""How well the pruned model agrees with the dense one on samples calibration did not see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.batching import Batch
from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.runner import Runner
from onnx_sipp.calibration.samples import Chosen
from onnx_sipp.graph.model import Model
from onnx_sipp.progress import Progress

__all__ = ["OutputFidelity", "measure_fidelity"]

# Most samples at a time: batches are planned by the outputs, which tell nothing of how much memory
# the model takes on the way.
_TOGETHER = 32


@dataclass(frozen=True)
class OutputFidelity:
    """Agreement of one output of the graph.

    Attributes:
        name: of the output.
        relative_error: ‖pruned − dense‖ / ‖dense‖ over all samples; for integer outputs the share
            of elements that differ. None if the output is no tensor of numbers.
        cosine: mean over samples of the cosine between the two; None if undefined.
        top1_agreement: share of rows whose largest entry is at the same place; None where the
            output does not look like class scores (two axes, the last of at least two classes).
        note: what kept it from being measured, "" if nothing.
    """

    name: str
    relative_error: float | None
    cosine: float | None
    top1_agreement: float | None
    note: str = ""


class _Meter:
    def __init__(self, name: str) -> None:
        self.name, self.note = name, ""
        self.error = self.power = self.cosines = self.largest = 0.0
        self.samples = self.rows = self.same = self.different = self.elements = 0
        self.numeric = self.integer = False

    def update(self, dense: Any, pruned: Any) -> None:
        """Compare ``[samples, ...]`` of both."""
        if not isinstance(dense, np.ndarray) or dense.dtype.kind not in "fViub":
            self.note = "not a tensor of numbers"
            return
        if dense.shape != pruned.shape:
            self.note = (
                f"its shape depends on the weights: {list(dense.shape)}, {list(pruned.shape)}"
            )
            return
        self.numeric, self.integer = True, dense.dtype.kind in "iub"
        self.different += int(np.sum(dense != pruned))
        self.elements += dense.size
        if not self.integer:
            self._compare(dense.astype(np.float64), pruned.astype(np.float64))

    def _compare(self, dense: NDArray[np.float64], pruned: NDArray[np.float64]) -> None:
        finite = np.isfinite(dense)
        if not finite.all():
            self.note = "the dense model gives infinities or NaN here; they are left out"
            dense, pruned = np.where(finite, dense, 0), np.where(finite, pruned, 0)
        if not np.isfinite(pruned).all():
            self.note = "the pruned model gives infinities or NaN where the dense one does not"
            self.error = float("inf")
            pruned = np.where(np.isfinite(pruned), pruned, 0)
        a, b = dense.reshape(len(dense), -1), pruned.reshape(len(pruned), -1)
        self.error += float(np.sum((a - b) ** 2))
        self.power += float(np.sum(a * a))
        self.largest = max(self.largest, float(np.max(np.abs(b), initial=0.0)))
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        dots = np.einsum("ij,ij->i", a, b)
        equal = (a == b).all(axis=1).astype(np.float64)
        self.cosines += float(np.sum(np.divide(dots, norms, out=equal, where=norms > 0)))
        self.samples += len(a)
        if dense.ndim == 3 and dense.shape[-1] > 1:  # one feed gives [rows, classes]
            rows = dense.reshape(-1, dense.shape[-1]).argmax(1)
            self.same += int(np.sum(rows == pruned.reshape(-1, dense.shape[-1]).argmax(1)))
            self.rows += len(rows)

    def result(self) -> OutputFidelity:
        """What was found, over all samples."""
        if not self.numeric:
            return OutputFidelity(self.name, None, None, None, self.note)
        if self.integer:
            share = self.different / max(1, self.elements)
            return OutputFidelity(self.name, share, None, None, self.note)
        if self.power > 0:
            error = float(np.sqrt(self.error / self.power))
        else:
            error = 0.0 if self.error == 0 else float("inf")
        if self.power == 0 and self.error > 0 and not self.note:
            self.note = (
                "the dense model always gives 0 here, so there is no relative error; the pruned "
                f"model gives up to {self.largest:.2g}"
            )
        cosine = self.cosines / self.samples if self.samples else None
        agreement = self.same / self.rows if self.rows else None
        return OutputFidelity(self.name, error, cosine, agreement, self.note)


def measure_fidelity(
    execution: Execution,
    dense: Model,
    pruned: Model,
    feeds: Chosen,
    progress: Progress,
    states: Mapping[str, str] | None = None,
) -> list[OutputFidelity]:
    """Run both models over the samples and compare every output.

    Args:
        execution: how they are run.
        dense: the model before.
        pruned: the model after; same outputs.
        feeds: the samples.
        progress: told how far it is.
        states: inputs that are fed back, and the outputs they come from. The pruned model is then
            fed its own states, so that errors may add up as they will in use.

    Raises:
        SippError: either model fails on an input.
    """
    names = list(dict.fromkeys(value.name for value in dense.proto.graph.output))
    meters = [_Meter(name) for name in names]
    if states:
        pairs = _fed_back(execution.runner(dense), execution.runner(pruned), feeds, states)
    else:
        whole = execution.whole(dense, [names])
        batching = execution.plan(dense, [names], feeds, whole)
        batching = replace(batching, size=min(batching.size, _TOGETHER))
        runs = [
            execution.sweeps(dense, [names], feeds, batching, whole),
            execution.sweeps(pruned, [names], feeds, batching),
        ]
        pairs = zip(*map(next, runs), strict=True)
    for before, after in pairs:
        for meter in meters:
            meter.update(before.tensors[meter.name], after.tensors[meter.name])
        progress.advance(before.samples, len(feeds))
    return [meter.result() for meter in meters]


def _fed_back(
    dense: Runner, pruned: Runner, feeds: Chosen, states: Mapping[str, str]
) -> Iterator[tuple[Batch, Batch]]:
    """Run sample by sample; the feeds hold the states of the dense model."""
    own: dict[str, Any] = {}
    for feed, start in zip(feeds, feeds.starts(), strict=True):
        before = dense.run(feed)
        after = pruned.run(feed if start else feed | own)
        own = {name: after[output] for name, output in states.items()}
        yield _single(before), _single(after)


def _single(tensors: Mapping[str, Any]) -> Batch:
    return Batch(1, {n: v[None] if isinstance(v, np.ndarray) else v for n, v in tensors.items()})
