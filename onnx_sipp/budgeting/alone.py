"""Prune one layer alone, and look at the outputs of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.mixing import probe
from onnx_sipp.refitting.refitter import Refitter

__all__ = ["WAYS", "better_way", "error_alone", "prune_alone"]

# Whether all neurons keep the same share.
WAYS = (True, False)


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
    return better_way(
        {way: error_alone(refitter, index, evidence, keep, threads, by_neuron=way) for way in WAYS}
    )


def better_way(errors: Mapping[bool, float]) -> tuple[float, bool]:
    """The lower of the errors by way, and its way; not by neuron if they are equal."""
    return min((error, way) for way, error in errors.items())
