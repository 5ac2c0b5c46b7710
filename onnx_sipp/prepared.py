"""A model that has been read and calibrated: what pruning it, at any sparsity, starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_sipp.budgeting.workers import Workers
from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.fidelity import OutputFidelity, measure_fidelity
from onnx_sipp.calibration.observe import Observation
from onnx_sipp.calibration.runner import is_large
from onnx_sipp.calibration.samples import Chosen, Samples
from onnx_sipp.config.applying import WeightRules
from onnx_sipp.errors import UsageError
from onnx_sipp.graph.layers import Findings
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.verdict import ensure_same_verdict
from onnx_sipp.keeping.fingerprint import data_digest, model_digest
from onnx_sipp.keeping.folder import RunFolder
from onnx_sipp.keeping.statistics import About
from onnx_sipp.measures import Measured
from onnx_sipp.memory import DEFAULT_LIMIT
from onnx_sipp.options import Options
from onnx_sipp.progress import Progress
from onnx_sipp.pruning.methods import Goal
from onnx_sipp.refitting.refitter import Refitter
from onnx_sipp.store import TensorStore
from onnx_sipp.weights import Weight

__all__ = ["Prepared"]

# Weights of a layer, worked on together, whose arrays are large.
_WIDE = 1 << 21


@dataclass(frozen=True)
class Prepared:
    """A calibrated model.

    Attributes:
        dense: as it was read.
        lowered: the same, lowered.
        findings: its layers and skipped nodes.
        weights: what can be pruned.
        measured: per weight, what calibration told.
        samples: the data.
        observed: those that statistics are measured on.
        patches: that a weight meets in a sample, on average.
        certified: how many samples the sensitivities were measured on.
        execution: how models are run.
        mask: the input that tells padding from data, if any.
        rules: for single weights.
        options: of the run.
        progress: told how far it is.
        started: when it began, on the performance counter.
        peak: the most memory that the process had had before, in bytes.
        kept: where finished parts of the run are kept, None if they are not.
        crew: workers that measure and make passes, None if this process does all.
    """

    dense: Model
    lowered: Lowered
    findings: Findings
    weights: Sequence[Weight]
    measured: Sequence[Measured]
    samples: Samples
    observed: Chosen
    patches: float
    certified: int
    execution: Execution
    mask: str | None
    rules: WeightRules
    options: Options
    progress: Progress
    started: float
    peak: int
    kept: RunFolder | None = None
    crew: Workers | None = None

    def finished(self) -> None:
        """Forget what was kept to go on from: the run is done."""
        for model in (self.dense, self.lowered):
            model.sites.let_go()
        if self.kept is not None:
            self.kept.forget()

    def about(self) -> About:
        """What statistics are measured on."""
        dense, samples = self.dense, self.samples
        return About(
            model=model_digest(dense),
            model_name="" if dense.path is None else dense.path.name,
            data=data_digest(samples.all_feeds()),
            source=samples.description,
            samples=len(samples.calibration),
            held_out=len(samples.held_out),
            observed=len(self.observed),
            mask=self.mask,
        )

    @property
    def units(self) -> int:
        """How many parts of the weights stay or go by themselves."""
        return sum(weight.units for weight in self.weights)

    @property
    def makes_large_arrays(self) -> bool:
        """Whether layers are wide, and memory is not short, by the limit or for a large model.

        With small arrays, among many samples, kept memory would only come to pieces.
        """
        if is_large(self.dense) or self.options.memory_limit < DEFAULT_LIMIT:
            return False
        return max(b.view.size for weight in self.weights for b in weight.blocks) >= _WIDE

    @property
    def reachable(self) -> tuple[int, int]:
        """The fewest and the most units that may stay, as rules fix those of some layers."""
        sizes = [weight.units for weight in self.weights]
        fixed = self.rules.fixed(sizes)
        least = sum(fixed.values())
        return least, least + sum(size for i, size in enumerate(sizes) if i not in fixed)

    def goal(self, sparsity: float) -> Goal:
        """What is to be kept at a sparsity, in ``units``.

        Raises:
            UsageError: rules fix so much that it cannot be met.
        """
        keep = self.units - round(sparsity * self.units)
        least, most = self.reachable
        # People round what they are told.
        near = 1e-4 * self.units + 1
        keep = min(max(keep, least), most) if least - near <= keep <= most + near else keep
        if not least <= keep <= most:
            allowed = sorted(1 - count / self.units for count in (least, most))
            raise UsageError(
                f"a sparsity of {sparsity:.2%} cannot be met: with the sparsities that rules give "
                f"to single layers, it can be between {allowed[0]:.4%} and {allowed[1]:.4%}"
            )
        return Goal(keep=keep, delta=self.options.delta)

    def observation(self, feeds: Chosen) -> Observation:
        """How the inputs of the layers are observed on some samples."""
        return Observation(
            self.execution, self.lowered, feeds, self.options.thread_count, self.progress, self.mask
        )

    def refitter(self) -> Refitter:
        """What refits layers in graph order."""
        store = TensorStore(0, self.options.workdir)
        return Refitter(
            self.lowered, self.weights, self.measured, self.samples, self.execution, store,
            self.mask,
        )  # fmt: skip

    def fidelity(self, pruned: Model) -> list[OutputFidelity]:
        """Check a pruned model, and compare its outputs on held-out samples.

        Raises:
            SippError: what the checker says of it differs from what it says of the dense one.
        """
        ensure_same_verdict(self.dense, pruned)
        return self.compared(pruned)

    def compared(self, changed: Model, before: Model | None = None) -> list[OutputFidelity]:
        """Compare outputs on held-out samples.

        Args:
            changed: a model with the same outputs.
            before: what it is compared with, None for the dense model.
        """
        self.progress.stage("comparing outputs")
        return measure_fidelity(
            self.execution, before or self.dense, changed, self.samples.held_out, self.progress,
            self.samples.states,
        )  # fmt: skip
