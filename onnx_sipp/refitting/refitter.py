"""What is asked of a calibrated model: surveys, passes, and what changes do to its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from copy import copy
from dataclasses import replace

from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.multiplying import multiplier_for
from onnx_sipp.calibration.samples import Samples
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.keeping.outcomes import OutcomeForm
from onnx_sipp.measures import Measured
from onnx_sipp.outcome import Settled
from onnx_sipp.progress import Progress
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.mixing import Choice
from onnx_sipp.refitting.batches import Batches, BatchRange
from onnx_sipp.refitting.dense_survey import DenseSurvey
from onnx_sipp.refitting.evidences import EvidenceMaker
from onnx_sipp.refitting.gathering import Gatherer
from onnx_sipp.refitting.idle import Idle
from onnx_sipp.refitting.output_errors import OutputErrors
from onnx_sipp.refitting.pruned import PrunedWeights
from onnx_sipp.refitting.rectified import Rectifier
from onnx_sipp.refitting.runs import Runs
from onnx_sipp.refitting.sequential import Decider, Look, Pass
from onnx_sipp.refitting.staged import Staged
from onnx_sipp.store import TensorStore
from onnx_sipp.weights import Weight

__all__ = ["IMPACT_SAMPLES", "Refitter"]

# Samples whose outputs tell what changing one layer does.
IMPACT_SAMPLES = 256


class Refitter:
    """Passes over the layers of a model in graph order.

    Args:
        dense: the lowered model; is not changed.
        weights: all prunable weights.
        measured: their statistics.
        samples: calibration and held-out samples.
        execution: how models are run.
        store: keeps pruned weights.
        mask: name of an input that tells padding from data, None if there is none.

    Attributes:
        survey: of the dense model.
    """

    def __init__(
        self,
        dense: Lowered,
        weights: Sequence[Weight],
        measured: Sequence[Measured],
        samples: Samples,
        execution: Execution,
        store: TensorStore,
        mask: str | None = None,
    ) -> None:
        self._staged = Staged.of(dense, weights, mask)
        self._measured, self._execution, self._store = measured, execution, store
        self._multiplier = multiplier_for(execution.providers)
        self._roomy = TensorStore(execution.memory.live, execution.store.folder)
        self._idle: Sequence[Idle] = ()
        self._part: BatchRange | None = None
        self._hasty = False
        outputs = {output.name for output in dense.proto.graph.output}
        taps = sorted(outputs.union(*self._staged.wanted(dense=True, pruned=True)))
        batching = execution.plan(dense, [taps], samples.calibration)
        batches = Batches(samples, batching)
        self._outputs = OutputErrors(dense, execution, batches)
        self._take_sums_of(batches, {})

    def _take_sums_of(self, batches: Batches, shared: dict[int, Evidence]) -> None:
        self._batches, staged, threads = batches, self._staged, self._execution.threads or 1
        judges, limit = batches.judges, self._execution.memory.sums
        multiplier = self._multiplier
        self._gatherer = Gatherer(
            judges, staged.mask, threads, limit, self._part, multiplier, hasty=self._hasty
        )
        self._rectifier = Rectifier(judges, staged.mask, threads, multiplier)
        count = len(batches.samples.calibration)
        self._makes = EvidenceMaker(staged.dense, staged.tails, self._measured, count, self._hasty)
        self._runs = Runs(staged, self._execution, batches, self._roomy)
        self.survey = DenseSurvey(
            staged, self._execution, self._runs, self._gatherer, self._makes, shared
        )

    def on_some(self, count: int) -> Refitter:
        """The same that only compares: in haste, and on some samples if there are more.

        Args:
            count: of calibration samples, evenly spread.
        """
        fewer = copy(self)
        fewer._hasty = True  # noqa: SLF001 - of the same class
        samples = self._batches.samples
        some = replace(samples, calibration=samples.calibration.at_most(count))
        fewer._take_sums_of(replace(self._batches, samples=some), self.survey.shared)  # noqa: SLF001
        return fewer

    def on_batches(self, batches: range, sizes: Sequence[int]) -> Refitter:
        """The same that sees some successive batches only, to gather their share of the sums.

        Args:
            batches: their numbers.
            sizes: see `batch_sizes`.
        """
        fewer = copy(self)
        fewer._part = BatchRange(batches.start, sizes)  # noqa: SLF001 - of the same class
        fewer._take_sums_of(replace(self._batches, seen=batches), self.survey.shared)  # noqa: SLF001
        return fewer

    def batch_sizes(self) -> list[int]:
        """Samples of every batch: those to calibrate on, then those held out."""
        return self._batches.sizes

    def biases(self, settled: Sequence[Settled] = ()) -> dict[str, str]:
        """See `Staged.biases`."""
        return self._staged.biases(settled)

    @property
    def form(self) -> OutcomeForm:
        """How outcomes of passes are told."""
        staged = self._staged
        names = [None if place is None else place.name for place in staged.bias_places]
        return OutcomeForm(staged.dense, staged.weights, names, self._store)

    def idle(self, model: Lowered | None = None) -> list[Idle]:
        """See `Staged.idle`."""
        return self._staged.idle(model)

    def leave_out(self, idle: Sequence[Idle]) -> None:
        """Take weights that do nothing out of all choices from now on.

        Args:
            idle: per weight.
        """
        self._idle = idle

    def know(self, shared: Mapping[int, Evidence], idle: Sequence[Idle]) -> None:
        """Take what another one has found out of the same model.

        Args:
            shared: see `DenseSurvey`.
            idle: see `leave_out`.
        """
        self.survey, self._idle = replace(self.survey, shared=dict(shared)), idle

    @property
    def has_cuts(self) -> bool:
        """Whether a layer's output is cut off by the next node."""
        return self._staged.has_cuts

    def left(self, index: int, evidence: Evidence) -> Evidence:
        """Evidence from a survey without the weights that are left out.

        Args:
            index: of the weight.
            evidence: of it.
        """
        rows = self._staged.juries[index].rows
        return self._idle[index].taken_from(evidence, rows) if self._idle else evidence

    def refit(
        self,
        decider: Decider,
        progress: Progress,
        *,
        sequential: bool,
        rectify: bool = False,
        before: PrunedWeights | None = None,
        look: Look | None = None,
    ) -> PrunedWeights:
        """One pass in graph order.

        A weight that several layers share is decided when the first of them comes, on the evidence
        from a survey, which must have been made: that is summed over all of them.

        Args:
            decider: decides on every weight.
            progress: told after every stage.
            sequential: whether layers are refitted on the activations of the pruned model, rather
                than on those of the dense one.
            rectify: whether what the next node cuts off is free; see `rectified`.
            before: an earlier pass to start from, None for the dense model.
            look: called for every weight with its new values if another pass follows.
        """
        pruned = self._staged.pruned(self._store, remember=look is not None)
        rectifier = self._rectifier if rectify else None
        made = Pass(
            decider, self._gatherer, self._makes, rectifier, self.survey.shared, self._idle,
            self._execution.threads or 1, before, look,
        )  # fmt: skip
        with ExitStack() as stack:
            dense = self._runs.of(self._staged.dense, dense=True, pruned=not sequential)
            runs = [stack.enter_context(closing(dense))]
            if sequential:
                after = self._runs.of(pruned.model, dense=False, pruned=True)
                runs.append(stack.enter_context(closing(after)))
            made.over(self._staged.stages, runs, pruned, progress)
        return pruned

    def is_whole(self, index: int) -> bool:
        """Whether a weight comes in one block."""
        return len(self._staged.weights[index].blocks) == 1

    def impact(self, choices: Mapping[int, Choice]) -> float:
        """Relative squared error of the model's outputs when a few weights alone are changed.

        Args:
            choices: what becomes of them, by the index of the weight, which is in one block.
        """
        changed = self._staged.pruned(self._store)
        for index, choice in choices.items():
            changed.write(index, 0, choice, 1.0)
        return self.output_error(changed.model, IMPACT_SAMPLES)

    def output_error(self, model: Lowered, samples: int | None = None) -> float:
        """Relative squared error of a changed model's outputs; see `OutputErrors.of`.

        Args:
            model: with the same outputs as the dense one.
            samples: about how many to look at, held-out ones first; None for all of the first
                batches.
        """
        batches = None if samples is None else -(-samples // self._batches.batching.size)
        return self._outputs.of(model, batches)
