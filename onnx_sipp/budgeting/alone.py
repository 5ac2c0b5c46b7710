"""Prune one layer alone, and look at the outputs of the model."""

from __future__ import annotations

from dataclasses import replace

from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.mixing import probe
from onnx_sipp.refitting.refitter import Refitter

__all__ = ["prune_alone"]


def prune_alone(
    refitter: Refitter, index: int, evidence: Evidence, keep: int, threads: int
) -> tuple[float, bool]:
    """Relative squared error of the outputs when one layer is pruned, by the better of two ways.

    Either all neurons keep the same share, or the layer's largest scores stay wherever they are.

    Args:
        refitter: of the dense model.
        index: of the weight, which is in one block.
        evidence: of it.
        keep: how many of its units stay.
        threads: to use.

    Returns:
        The error, and whether that is by neuron; it is not if both are as good.
    """
    found = []
    for by_neuron in (True, False):
        choice = probe(replace(evidence, by_neuron=by_neuron), keep, threads=threads)
        found.append((refitter.impact({index: choice}), by_neuron))
    return min(found)
