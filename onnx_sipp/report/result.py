"""The report of a run, as plain data: the table, the JSON file and the library all show this."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from onnx_sipp.report.details import CurveReport, Distribution, StepReport
from onnx_sipp.report.finite import finite
from onnx_sipp.report.names import json_text
from onnx_sipp.report.outputs import OutputReport
from onnx_sipp.report.packing import PackReport
from onnx_sipp.report.quantizing import QuantizeReport
from onnx_sipp.report.search import SearchReport

__all__ = [
    "SCHEMA_VERSION",
    "CalibrationReport",
    "CutReport",
    "GroupReport",
    "LayerReport",
    "OutputReport",
    "Report",
    "SkippedReport",
]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        name: of the node.
        op_type: of the node.
        weight: name of the stored constant.
        shape: of the constant.
        parameters: its elements.
        zeros: how many of them are zero now.
        epsilon_worst: the largest certified relative error of a neuron half.
        epsilon_median: the median of those.
        sensitivity_sum_worst: the largest sum of sensitivities of a neuron half.
        sensitivity_sum_median: the median of those.
        sampled_halves: neuron halves whose weights were sampled, of ``halves``.
        halves: neuron halves that have weights.
        measured_error: relative error of the layer's output on held-out samples, from the dense
            model's input, without ``dead_neurons``; NaN if none of them reached it.
        bias: name of the stored constant that took up a change of the bias, "" if none did.
        bias_is_new: that constant was added: the node had no bias, and one lowers the error.
        candidate: which way of choosing weights won, "" if there was one way only.
        damping: λ of the refit, 0 if it was not used, None if none was asked for, or if what the
            layer multiplies is too large for one.
        refit_error_before: relative error on held-out samples against the layer's target without
            the refit, in the pruned network; None if no refit was asked for.
        refit_error: the same after the refit.
        freed: weights that did nothing in the end and were dropped, so that others could stay.
        dead_neurons: neurons without weights because no output of the model depends on them.
        also_read_by: what else than layers reads the constant, "" if nothing does.
        shares_weight_with: another layer of the same weight that was listed before, "" if none.
        observed: whether any sample reached a layer of the weight. If not, weights were chosen by
            magnitude, as if all inputs were alike, and nothing is certified.
        no_sparse_cores: with a pattern: why sparse tensor cores cannot run the layer, "" if they
            can. None without a pattern.
        sensitivities: how they are distributed; None for a weight that was listed before.
        curve: error against sparsity as the budget saw it; None if the budget is another, or for a
            weight that was listed before.
    """

    name: str
    op_type: str
    weight: str
    shape: list[int]
    parameters: int
    zeros: int
    epsilon_worst: float
    epsilon_median: float
    sensitivity_sum_worst: float
    sensitivity_sum_median: float
    sampled_halves: int
    halves: int
    measured_error: float
    bias: str = ""
    bias_is_new: bool = False
    candidate: str = ""
    damping: float | None = None
    refit_error_before: float | None = None
    refit_error: float | None = None
    freed: int = 0
    dead_neurons: int = 0
    shares_weight_with: str = ""
    also_read_by: str = ""
    observed: bool = True
    no_sparse_cores: str | None = None
    sensitivities: Distribution | None = None
    curve: CurveReport | None = None

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return self.zeros / self.parameters if self.parameters else 0.0


@dataclass(frozen=True)
class SkippedReport:
    """A node that multiplies a constant and was left alone, with the reason."""

    name: str
    op_type: str
    parameters: int
    reason: str


@dataclass(frozen=True)
class CalibrationReport:
    """What was calibrated on.

    Attributes:
        source: description of the data.
        synthetic: True if the inputs were made up.
        samples: used for the statistics.
        samples_certified: those of them that the sensitivities, and so the certificate, come from.
        samples_needed: that the theory asks for at this δ.
        held_out: kept back to measure fidelity.
        delta: failure probability of the certificate.
    """

    source: str
    synthetic: bool
    samples: int
    samples_certified: int
    samples_needed: int
    held_out: int
    delta: float


@dataclass(frozen=True)
class GroupReport:
    """Channels, hidden units or heads that are cut together.

    Attributes:
        name: the nodes that make them.
        readers: names of the nodes whose weights sum over them.
        units: how many there were.
        width: places that each takes: 1 for a channel, the width of a head for a head.
        kept: how many are left.
        chosen_by: which way of choosing won, "" if none were cut.
        reason: why none were cut, "" if some were.
    """

    name: str
    readers: list[str]
    units: int
    width: int
    kept: int
    chosen_by: str = ""
    reason: str = ""


@dataclass(frozen=True)
class CutReport:
    """What was cut out of the graph.

    Attributes:
        groups: in the order of the nodes that make or read them.
        macs_before: multiply-adds for one sample.
        macs_after: the same of the result.
        parameters_before: elements of all parameters of the main graph.
        parameters_after: the same of the result.
        latency: measured share of the dense model's time in onnxruntime; None if it was not asked
            for.
    """

    groups: list[GroupReport]
    macs_before: int
    macs_after: int
    parameters_before: int
    parameters_after: int
    latency: float | None = None


@dataclass(frozen=True)
class Report:
    """Everything that a run has to say.

    Attributes:
        version: of onnx-sipp.
        options: what was asked for, enough to repeat the run.
        prunable: elements of all prunable weights.
        zeros: how many of those are zero now.
        zeros_before: how many were zero before.
        parameters: elements of all floating-point and quantised constants of the model.
        layers: in graph order.
        skipped: nodes left alone.
        outputs: fidelity per output of the graph.
        calibration: the data.
        bytes_before: size of the input file(s), None if the model came from memory.
        bytes_after: size of the written file(s), None until it is written.
        seconds: wall time.
        budget: which budget by measured error won, "" if there was no choice.
        budgets: relative error of the outputs with each of those budgets, on up to 16 batches, the
            held-out ones first.
        freed: weights on dead paths that were dropped, so that others could stay.
        freed_errors: relative error of the outputs, on the samples of ``budgets``, before anything
            was freed and after each pass that freed some; empty if dead paths were not looked for.
        quantization: what quantising did to the pruned model, None if it was not asked for;
            `outputs` then is of the quantised model, `layers` of the pruned one.
        packing: what packing did, None if the weights are stored with their zeros.
        warnings: what the user must know.
        cut: what was cut out of the graph, None if nothing was to be; `layers` is empty if it was.
        model: name of the input file, "" if the model came from memory.
        steps: the way through the graph, in order.
        search: how the sparsity was found, None if it was given.
        schema_version: of this structure; grows when a field changes its meaning or goes.
    """

    version: str
    options: dict[str, Any]
    prunable: int
    zeros: int
    zeros_before: int
    parameters: int
    layers: list[LayerReport]
    skipped: list[SkippedReport]
    outputs: list[OutputReport]
    calibration: CalibrationReport
    bytes_before: int | None
    bytes_after: int | None
    seconds: float
    budget: str = ""
    budgets: dict[str, float] = field(default_factory=dict)
    freed: int = 0
    freed_errors: list[float] = field(default_factory=list)
    quantization: QuantizeReport | None = None
    packing: PackReport | None = None
    warnings: list[str] = field(default_factory=list)
    cut: CutReport | None = None
    model: str = ""
    steps: list[StepReport] = field(default_factory=list)
    search: SearchReport | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def sparsity(self) -> float:
        """Share of zeros among the prunable weights."""
        return self.zeros / self.prunable if self.prunable else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data: JSON types only, infinities and NaN as null."""
        data = asdict(self)
        data["sparsity"] = self.sparsity
        for layer, row in zip(self.layers, data["layers"], strict=True):
            row["sparsity"] = layer.sparsity
        if self.quantization is not None:
            data["quantization"] = self.quantization.to_dict()
        if self.packing is not None:
            data["packing"] = self.packing.to_dict()
        plain: dict[str, Any] = finite(data)
        return plain

    def to_json(self) -> str:
        """The same as JSON text."""
        return json_text(self.to_dict())
