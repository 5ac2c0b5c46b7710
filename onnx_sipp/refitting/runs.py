"""Runs of the dense and of the pruned model, stage by stage, on the same batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.segments import SegmentedRun
from onnx_sipp.calibration.specs import Feed
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.refitting.batches import Batches
from onnx_sipp.refitting.staged import Staged
from onnx_sipp.store import TensorStore

__all__ = ["Runs"]

# Samples whose activations may wait in memory; those of others wait in files, so that a run on more
# samples takes no more memory.
_HELD_SAMPLES = 256


@dataclass(frozen=True)
class Runs:
    """How models with the nodes of a dense one are run.

    Attributes:
        staged: the dense model and its stages.
        execution: how models are run.
        batches: of samples, that they are run on.
        roomy: holds activations of the first samples.
    """

    staged: Staged
    execution: Execution
    batches: Batches
    roomy: TensorStore

    def of(self, model: Lowered, *, dense: bool, pruned: bool) -> SegmentedRun:
        """A run that gives what is needed of the dense model, of the pruned one, or of both."""
        return SegmentedRun(
            model, self.staged.flow, self.staged.wanted(dense=dense, pruned=pruned),
            self._held(), self.execution.store, threads=self.execution.threads,
            providers=self.execution.providers,
        )  # fmt: skip

    def _held(self) -> Iterator[tuple[Feed, TensorStore]]:
        """Batches, and what holds their tensors."""
        seen = 0
        for samples, feed in self.batches.counted():
            seen += samples
            yield feed, self.roomy if seen <= _HELD_SAMPLES else self.execution.store
