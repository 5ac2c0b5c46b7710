"""What each layer costs alone."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_sipp.budgeting.alone import prune_alone
from onnx_sipp.errors import SippError
from onnx_sipp.graph.tensors import FLOAT_TYPES
from onnx_sipp.prepared import Prepared
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.report.sweep import LayerCurve
from onnx_sipp.weights import Weight

__all__ = ["layer_curves"]


def layer_curves(
    prepared: Prepared, sparsities: Sequence[float]
) -> tuple[list[LayerCurve], list[str]]:
    """Prune and refit every layer alone, in a cheap way, and look at the outputs of the model.

    The error is that on up to 256 samples, the held-out ones first.

    Args:
        prepared: the model.
        sparsities: of the layer, each.

    Returns:
        A curve per weight, in graph order, and what the user must know.

    Raises:
        SippError: no output of the model can tell.
    """
    _refuse_blunt(prepared)
    refitter, progress = prepared.refitter(), prepared.progress
    threads = prepared.options.thread_count
    errors: dict[int, list[float | None]] = {}

    def look(index: int, evidence: Evidence) -> None:
        if not evidence.is_seen or not refitter.is_whole(index):
            return
        units = evidence.units
        keeps = [units - round(sparsity * units) for sparsity in sparsities]
        errors[index] = [
            None
            if keep > evidence.alive
            else prune_alone(refitter, index, evidence, keep, threads)[0] ** 0.5
            for keep in keeps
        ]

    progress.stage("pruning layers alone")
    refitter.survey.run(look, progress)
    missing = [w.layers[0].name for i, w in enumerate(prepared.weights) if i not in errors]
    notes = []
    if missing:
        notes.append(
            "no sample reached these layers, or they are so large that they are pruned in blocks "
            "of neurons, so they were not tried alone: " + ", ".join(missing)
        )
    curves = [
        _curve(weight, errors.get(index, [None] * len(sparsities)))
        for index, weight in enumerate(prepared.weights)
    ]
    return curves, notes


def _refuse_blunt(prepared: Prepared) -> None:
    """Refuse a model whose outputs show no small changes.

    Raises:
        SippError: none of them is a floating-point tensor.
    """
    outputs = prepared.dense.proto.graph.output
    if not any(value.type.tensor_type.elem_type in FLOAT_TYPES for value in outputs):
        raise SippError(
            "no output of the model is a tensor of floating-point numbers, so the error there does "
            "not tell what a layer costs; add such an output, e.g. the scores before an ArgMax"
        )


def _curve(weight: Weight, errors: list[float | None]) -> LayerCurve:
    first, *others = weight.layers
    return LayerCurve(
        name=first.name,
        op_type=first.op_type,
        parameters=weight.size,
        shared_with=[layer.name for layer in others],
        errors=errors,
    )
