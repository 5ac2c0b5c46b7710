"""Ways to choose which weights of a layer stay, and the error curve of a layer.

A new candidate is one function and one line in `CANDIDATES`; `mixing` compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.evidence import Evidence, damping_for
from onnx_sipp.pruning.removal import gradual_costs, gradual_mask, greedy_work, product_work
from onnx_sipp.pruning.sampling import sample_halves
from onnx_sipp.pruning.selection import Mask, apportion

__all__ = ["CANDIDATES", "is_large", "removal_costs"]

# Multiplications that the exact greedy order of one layer may take.
GREEDY_LIMIT = 1.5e10
# Multiplications of a product with H from which on every product is thought over.
LARGE_PRODUCT = 2e9


def is_large(evidence: Evidence) -> bool:
    """Whether a product of the weights with H is so costly that steps must be few."""
    return product_work(evidence.weight.shape) > LARGE_PRODUCT


def removal_costs(evidence: Evidence, threads: int) -> NDArray[np.float32]:
    """What removing each weight costs at the layer's output, after refitting the others.

    Returns:
        Shape of the weight. Where the layer is too large to follow every neuron, the costs of some
        neurons stand for all: right as a curve, not weight by weight.
    """
    if greedy_work(evidence.weight.shape) <= GREEDY_LIMIT:
        return _greedy(evidence, threads)
    some = evidence.some_neurons()
    costs = gradual_costs(some.fit, some.weight, damping=damping_for(evidence), threads=threads)
    return np.resize(_at_output(some, costs), evidence.weight.shape)


def _greedy(evidence: Evidence, threads: int) -> NDArray[np.float32]:
    from onnx_sipp.pruning.greedy import greedy_costs  # noqa: PLC0415 - loads the compiler

    damping = damping_for(evidence)
    costs = greedy_costs(evidence.fit, evidence.weight, damping=damping, threads=threads)
    return _at_output(evidence, costs)


def _at_output(evidence: Evidence, costs: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = costs * evidence.rate[..., None].astype(np.float32)
    return scaled


Candidate = Callable[[Evidence, int, int, int], Mask]


def _ordered(evidence: Evidence, keep: int, seed: int, threads: int) -> Mask:
    """By the cost of removal: exact greedy where that is affordable, else gradual."""
    del seed
    if greedy_work(evidence.weight.shape) <= GREEDY_LIMIT:
        return evidence.pick(_greedy(evidence, threads), keep)
    large = is_large(evidence)
    # A neuron that nothing comes of is still a place for weights, the last one.
    gain = np.maximum(np.abs(evidence.gain), 1e-9 * np.abs(evidence.gain).max(initial=1e-9))
    kept, _ = gradual_mask(
        evidence.fit.scaled(gain),
        evidence.weight * gain[..., None],
        keep,
        damping=damping_for(evidence),
        stages=3 if large else 8,
        steps=3 if large else 8,
        by_neuron=evidence.by_neuron,
        threads=threads,
    )
    return kept


def _magnitude(evidence: Evidence, keep: int, seed: int, threads: int) -> Mask:
    """By |w| · gain."""
    del seed, threads
    return evidence.pick(np.abs(evidence.weight * evidence.gain[..., None]), keep)


def _activation(evidence: Evidence, keep: int, seed: int, threads: int) -> Mask:
    """By |w| · rms(a) · gain."""
    del seed, threads
    scale = np.sqrt(np.maximum(np.einsum("gff->gf", evidence.fit.gram), 0))[:, None, :]
    score = np.abs(evidence.weight * evidence.gain[..., None]) * scale
    return evidence.pick(score, keep)


def _surgeon(evidence: Evidence, keep: int, seed: int, threads: int) -> Mask:
    """By w² / [H⁻¹]_jj, the diagonal of Optimal Brain Surgeon."""
    del seed, threads
    gram = evidence.fit.gram
    shift = damping_for(evidence) * np.einsum("gff->g", gram) / gram.shape[-1]
    eye = np.eye(gram.shape[-1])
    inverse = np.linalg.inv(gram + np.where(shift > 0, shift, 1.0)[:, None, None] * eye)
    spread = np.einsum("gff->gf", inverse)[:, None, :]
    score = (evidence.weight * evidence.gain[..., None]) ** 2 / np.maximum(spread, 1e-30)
    return evidence.pick(score, keep)


def _sensitive(evidence: Evidence, keep: int, seed: int, threads: int) -> Mask:
    """By SiPP's sensitivities."""
    del seed, threads
    return evidence.pick(evidence.sensitivity, keep)


def _sampled(evidence: Evidence, keep: int, seed: int, threads: int) -> Mask:
    """Drawn with SiPP's probabilities, the same share of every neuron."""
    del threads
    weight = evidence.weight.reshape(-1, evidence.weight.shape[-1])
    alive = np.count_nonzero(weight, axis=-1)
    counts = apportion(np.full(len(weight), weight.shape[-1]), alive, keep)
    # Weights that no sample needed can still fill a row, last.
    floor = 1e-12 * np.abs(weight.astype(np.float64))
    probability = np.maximum(evidence.sensitivity.reshape(weight.shape), floor)
    drawn = sample_halves(weight, np.where(weight != 0, probability, 0), counts, seed)
    kept: Mask = (drawn != 0).reshape(evidence.weight.shape)
    return kept


CANDIDATES: Mapping[str, Candidate] = {
    "removal-cost": _ordered,
    "magnitude": _magnitude,
    "activation": _activation,
    "surgeon": _surgeon,
    "sipp-det": _sensitive,
    "sipp-rand": _sampled,
}
