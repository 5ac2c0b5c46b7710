"""What became of every layer, and what is certified of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.fitting import why_no_sparse_cores
from onnx_sipp.graph.layers import Findings, Layer
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.measures import Measured
from onnx_sipp.outcome import Outcome, Refit
from onnx_sipp.pruning.certificate import Certificate, certify
from onnx_sipp.report.details import CurveReport, Distribution
from onnx_sipp.report.result import LayerReport
from onnx_sipp.weights import Weight

__all__ = ["Basis", "layer_rows"]


@dataclass(frozen=True)
class Basis:
    """What the certificates of a run rest on.

    Attributes:
        samples: that the sensitivities were measured on.
        needed: how many the theory asks for.
        delta: failure probability of the bounds.
        threads: to work them out.
    """

    samples: int
    needed: int
    delta: float
    threads: int = 1


def layer_rows(
    dense: Lowered,
    findings: Findings,
    measured: Sequence[Measured],
    outcome: Outcome,
    errors: Mapping[str, float],
    basis: Basis,
) -> dict[str, LayerReport]:
    """What became of every layer, by its name.

    Args:
        dense: the lowered model before.
        findings: its layers.
        measured: per weight, what calibration told.
        outcome: the model after, and per weight what was decided.
        errors: measured output error by layer name.
        basis: of the certificates.
    """
    rows: dict[str, LayerReport] = {}
    for index, (found, settled) in enumerate(zip(measured, outcome.settled, strict=True)):
        weight = found.weight
        zeros = _zeros(weight, outcome.model)
        for layer in weight.layers:
            sampled = _sampled_halves(weight, layer, settled.sampled)
            certificate = _certificate(found, layer, outcome.model, sampled, basis)
            bias = outcome.biases.get(layer.name, "")
            row = _row(layer, weight, certificate, settled.refit, zeros, errors[layer.name])
            rows[layer.name] = replace(
                _as_known(row, found, settled.refit),
                weight=dense.weight_name(layer.weight),
                also_read_by=findings.tied.get(layer.name, ""),
                sampled_halves=int(sampled.sum()),
                bias=dense.weight_name(bias) if bias else "",
                bias_is_new=dense.is_spare(bias),
                freed=outcome.respent.weights[index] if outcome.respent.weights else 0,
                dead_neurons=_dead_neurons(outcome, index),
                no_sparse_cores=None
                if weight.pattern is None
                else why_no_sparse_cores(dense, layer, weight.pattern),
            )
        first = weight.layers[0].name
        rows[first] = replace(
            rows[first],
            sensitivities=_distribution(found, outcome.model, basis.threads),
            curve=_curve(outcome, index),
        )
    return rows


def _zeros(weight: Weight, model: Lowered) -> int:
    """How many zeros a weight has in a model."""
    return sum(int(np.count_nonzero(block.stored_in(model) == 0)) for block in weight.blocks)


def _as_known(row: LayerReport, found: Measured, refit: Refit | None) -> LayerReport:
    """A row without what is not known of a layer that no sample reached, or that is too large."""
    if not found.patches:
        return replace(row, observed=False, epsilon_worst=inf, epsilon_median=inf)
    if refit is not None and refit.too_large:
        return replace(row, damping=None, refit_error_before=None, refit_error=None)
    return row


def _distribution(found: Measured, model: Lowered, threads: int) -> Distribution:
    """How the sensitivities of a weight are distributed."""
    blocks = enumerate(found.weight.blocks)
    parts = [(found.maximum.block(number), block.matrix_in(model)) for number, block in blocks]
    return Distribution.of(parts, threads)


def _curve(outcome: Outcome, index: int) -> CurveReport | None:
    curve = outcome.curves[index] if outcome.curves else None
    return None if curve is None else CurveReport(list(curve.sparsities), list(curve.errors))


def _dead_neurons(outcome: Outcome, index: int) -> int:
    neurons = outcome.respent.neurons
    return int(neurons[index].sum()) if neurons else 0


def _certificate(
    measured: Measured,
    layer: Layer,
    model: Lowered,
    sampled: NDArray[np.bool_],
    basis: Basis,
) -> Certificate:
    """What is proven of a layer, block by block."""
    weight = measured.weight
    parts = [
        certify(
            weight.as_seen_by(layer, block.matrix),
            weight.as_seen_by(layer, measured.maximum.block(number)),
            weight.as_seen_by(layer, block.matrix_in(model)),
            sampled[:, :, block.rows] if len(weight.blocks) > 1 else sampled,
            patches=measured.patches,
            samples=basis.samples,
            needed=basis.needed,
            delta=basis.delta,
            threads=basis.threads,
        )
        for number, block in enumerate(weight.blocks)
    ]
    return Certificate(
        np.concatenate([part.epsilon for part in parts], axis=2),
        np.concatenate([part.sensitivity_sums for part in parts], axis=2),
        basis.delta,
        basis.samples,
        basis.needed,
    )


def _sampled_halves(weight: Weight, layer: Layer, sampled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which halves of a layer's own neurons were sampled."""
    if weight.seen_alike(layer):
        return sampled
    # It sees the matrix turned round, and nobody sampled the halves of its neurons.
    groups, outs, _ = layer.view.matrix
    return np.zeros((2, groups, outs), np.bool_)


def _row(
    layer: Layer,
    weight: Weight,
    certificate: Certificate,
    refit: Refit | None,
    zeros: int,
    error: float,
) -> LayerReport:
    sums = certificate.sensitivity_sums
    used = sums > 0
    first = weight.layers[0]
    return LayerReport(
        name=layer.name,
        op_type=layer.op_type,
        weight=layer.weight,
        shape=list(layer.view.stored),
        parameters=layer.view.size,
        zeros=zeros,
        epsilon_worst=certificate.worst,
        epsilon_median=certificate.median,
        sensitivity_sum_worst=float(sums.max(initial=0.0)),
        sensitivity_sum_median=float(np.median(sums[used])) if used.any() else 0.0,
        sampled_halves=0,
        halves=int(used.sum()),
        measured_error=error,
        candidate=refit.candidate if refit else "",
        damping=refit.damping if refit else None,
        refit_error_before=float(np.sqrt(refit.error_before)) if refit else None,
        refit_error=float(np.sqrt(refit.error)) if refit else None,
        shares_weight_with="" if layer is first else first.name,
    )
