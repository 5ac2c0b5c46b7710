"""Prune one layer alone, and look at the outputs of the model."""

from __future__ import annotations

from dataclasses import replace

from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.mixing import probe
from onnx_sipp.sequential import Refitter

__all__ = ["prune_alone"]


def prune_alone(
    refitter: Refitter, index: int, evidence: Evidence, keep: int, threads: int
) -> tuple[float, bool]:
    """Relative squared error of the outputs, and whether neurons better keep the same share each.

    Args:
        refitter: of the dense model.
        index: of the weight, which is in one block.
        evidence: of it.
        keep: how many of its units stay.
        threads: to use.
    """
    return min(
        (refitter.impact({index: probe(way, keep, threads=threads)}), way.by_neuron)
        for way in (replace(evidence, by_neuron=True), evidence)
    )
