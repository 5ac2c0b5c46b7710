"""What a pruned model costs, and whether that is within the user's goal."""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from onnx_sipp.calibration.fidelity import OutputFidelity
from onnx_sipp.comparing.metric import JudgedBy, MetricFunction, load_metric
from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.finish import as_written
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.verdict import ensure_same_verdict
from onnx_sipp.prepared import Prepared
from onnx_sipp.report.search import SearchStep

__all__ = ["Judge", "Metered"]


class Metered:
    """The user's measure of a model, taken from a file that is written for it.

    Args:
        prepared: the dense model.
        metric: ``"file.py:function"``, or a function of a model's path.

    Raises:
        UsageError: there is no such file or function.
        SippError: it fails on the dense model.
    """

    def __init__(self, prepared: Prepared, metric: str | MetricFunction) -> None:
        options = prepared.options
        libraries = [Path(library) for library in options.custom_ops]
        self._judged: JudgedBy = load_metric(metric, options.providers, libraries)
        self._folder = options.workdir
        self.name = self._judged.name
        self.dense = self(prepared.dense)

    def __call__(self, model: Model) -> float:
        """The number for a model.

        Raises:
            SippError: the function fails, or gives no number.
        """
        with tempfile.TemporaryDirectory(prefix="onnx-sipp-", dir=self._folder) as folder:
            path = Path(folder) / "model.onnx"
            model.save(path)
            return self._judged(path)


class Judge:
    """Compares pruned models with a goal.

    Args:
        prepared: the dense model; its options have at least one of the goals.

    Raises:
        UsageError: the metric cannot be loaded.
        SippError: it fails on the dense model.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared, options = prepared, prepared.options
        self._metric = (
            None if options.eval_script is None else Metered(prepared, options.eval_script)
        )
        self.goals = options.goals

    @property
    def metric_name(self) -> str:
        """The user's function, "" if there is none."""
        return self._metric.name if self._metric else ""

    @property
    def metric_dense(self) -> float | None:
        """What it gives for the dense model."""
        return self._metric.dense if self._metric else None

    @property
    def told(self) -> str:
        """What else than pruning counts, if anything does."""
        options = self._prepared.options
        done = ["quantised"] * bool(options.quantize) + ["packed"] * options.packs_with_loss
        return f" once the model is {' and '.join(done)}" if done else ""

    def step(self, sparsity: float, pruned: Model, *, careful: bool) -> SearchStep:
        """What a sparsity costs, on held-out samples.

        Raises:
            UsageError: agreement is asked for, and no output looks like class scores.
            SippError: no output can be compared, or the metric fails.
        """
        with self._judged(pruned, careful=careful) as model:
            outputs = self._prepared.compared(model)
            metric = self._metric(model) if self._metric else None
        errors = [o.relative_error for o in outputs if o.relative_error is not None]
        if not errors:
            notes = ", ".join(f"{output.name}: {output.note}" for output in outputs)
            raise SippError(
                f"no output of the model can be compared, so no goal can be met: {notes}"
            )
        agreement = _agreement(outputs)
        if agreement is None and "min_agreement" in self.goals:
            raise UsageError(
                "no output of the model looks like class scores ([samples, classes]), so there is "
                "no top-1 agreement; take --max-error, or --max-drop with a metric of yours"
            )
        meets = self._meets(max(errors), agreement, metric)
        return SearchStep(sparsity, careful, max(errors), agreement, metric, meets)

    def _judged(self, pruned: Model, *, careful: bool) -> AbstractContextManager[Model]:
        """What is to meet the goals: what will be written. Short passes only tell where to look."""
        ensure_same_verdict(self._prepared.dense, pruned)
        return as_written(self._prepared, pruned) if careful else nullcontext(pruned)

    def _meets(self, error: float, agreement: float | None, metric: float | None) -> bool:
        """Whether all goals are met; NaN meets none."""
        goals, met = self.goals, []
        if "max_error" in goals:
            met.append(error <= goals["max_error"])
        if "min_agreement" in goals and agreement is not None:
            met.append(agreement >= goals["min_agreement"])
        if self._metric is not None and metric is not None:
            met.append(self._metric.dense - metric <= goals["max_drop"])
        return all(met)


def _agreement(outputs: list[OutputFidelity]) -> float | None:
    found = [o.top1_agreement for o in outputs if o.top1_agreement is not None]
    return min(found, default=None)
