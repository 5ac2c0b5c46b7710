"""Prune one layer alone, and look at the outputs of the model."""

from __future__ import annotations

from dataclasses import replace

from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.mixing import probe
from onnx_sipp.sequential import Refitter

__all__ = ["error_alone", "prune_alone"]


def error_alone(
    refitter: Refitter, index: int, evidence: Evidence, keep: int, threads: int, *, by_neuron: bool
) -> float:
    """Relative squared error of the outputs when one layer is pruned.

    Args:
        refitter: of the dense model.
        index: of the weight, which is in one block.
        evidence: of it.
        keep: how many of its units stay.
        threads: to use.
        by_neuron: whether all neurons keep the same share.
    """
    way = replace(evidence, by_neuron=by_neuron)
    return refitter.impact({index: probe(way, keep, threads=threads)})


def prune_alone(
    refitter: Refitter, index: int, evidence: Evidence, keep: int, threads: int
) -> tuple[float, bool]:
    """The same by the better way, and whether that is by neuron."""
    return min(
        (error_alone(refitter, index, evidence, keep, threads, by_neuron=way), way)
        for way in (True, False)
    )
