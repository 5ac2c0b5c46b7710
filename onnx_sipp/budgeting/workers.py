"""What workers do for a run, wherever they are; see `cluster`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from onnx_sipp.budgeting.known import Known
from onnx_sipp.budgeting.looks import LayerLook
from onnx_sipp.keeping.outcomes import OutcomeForm
from onnx_sipp.measures import Measured
from onnx_sipp.outcome import Outcome
from onnx_sipp.progress import Progress
from onnx_sipp.store import TensorStore
from onnx_sipp.weights import Weight

__all__ = ["Workers"]


class Workers(Protocol):
    """Workers that know the model and the samples."""

    @property
    def can_compare(self) -> bool:
        """Whether to compare budgets: not of a large model; all would have to hold statistics."""

    def statistics(
        self,
        weights: Sequence[Weight],
        samples: int,
        patches: float,
        progress: Progress,
        store: TensorStore,
    ) -> list[Measured] | None:
        """Measure what `measure_statistics` does, on shards of the samples.

        Args:
            weights: to measure.
            samples: how many to measure on.
            patches: that a weight meets in a sample.
            progress: told after every shard.
            store: keeps what is measured.

        Returns:
            What was measured; None where it takes longer to send the model than to do the work.
        """

    def survey(
        self,
        known: Known,
        indices: Sequence[int],
        sizes: Sequence[int],
        progress: Progress,
        *,
        alone: bool,
    ) -> list[LayerLook] | None:
        """Look at layers of the dense model.

        Args:
            known: what is known of it.
            indices: of the weights to look at.
            sizes: see `Refitter.batch_sizes`.
            progress: told after every layer.
            alone: whether to prune every layer alone; see `Surveyor.look`.

        Returns:
            What was seen, in the order of the indices; None where the sums of all layers do not fit
            into memory together, the samples cannot be parted, or it is not worth it.
        """

    def compare(
        self, known: Known, plans: Sequence[str], form: OutcomeForm, progress: Progress
    ) -> tuple[dict[str, float], Outcome]:
        """Try budgets, and make a careful pass by the best one.

        Args:
            known: what is known of the model.
            plans: names of the budgets.
            form: how the outcome is told.
            progress: told after every trial, and the pass.

        Returns:
            Errors by budget, and the outcome of the careful pass.
        """
