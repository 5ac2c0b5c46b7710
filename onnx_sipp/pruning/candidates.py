"""Ways to choose which weights of a layer stay, and the error curve of a layer.

A new candidate is one function and one line in `CANDIDATES`; `mixing` compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.cells import Cells
from onnx_sipp.pruning.evidence import Evidence, damping_for
from onnx_sipp.pruning.removal import (
    activation_scores,
    gradual_costs,
    gradual_mask,
    greedy_work,
)
from onnx_sipp.pruning.sampling import sample_halves
from onnx_sipp.pruning.selection import Mask, apportion

__all__ = ["CANDIDATES", "Proposal", "output_costs"]

Float = NDArray[np.floating]

# Multiplications that the exact greedy order of one layer may take.
GREEDY_LIMIT = 1.5e10


def output_costs(
    evidence: Evidence, ways: Sequence[bool], threads: int
) -> dict[bool, NDArray[np.float32]]:
    """What removing each weight, or cell of a pattern, costs after refitting the others.

    Args:
        evidence: of the layer.
        ways: values of `Evidence.by_neuron` by which costs are to count.
        threads: neurons worked on at the same time.

    Returns:
        By way, costs of all units; of some neurons only where the layer is too large to follow
        every one.
    """
    judged = {way: replace(evidence, by_neuron=way) for way in ways}
    cells = evidence.cells
    if greedy_work(evidence.weight.shape) <= GREEDY_LIMIT:
        if cells is not None:
            return {way: _greedy_blocks(found, cells, threads) for way, found in judged.items()}
        costs = _greedy(evidence, threads)
        return {way: found.at_output(costs) for way, found in judged.items()}
    some = evidence.some_neurons()
    costs = gradual_costs(
        some.fit, some.weight, damping=damping_for(evidence),
        steps=evidence.effort.screening_steps, threads=threads, cells=cells,
    )  # fmt: skip
    scaled = {way: found.at_output(costs) for way, found in judged.items()}
    return scaled if cells is None else {way: cells.summed(c) for way, c in scaled.items()}


def _greedy_blocks(evidence: Evidence, cells: Cells, threads: int) -> NDArray[np.float32]:
    from onnx_sipp.pruning.patterned import block_costs  # noqa: PLC0415 - loads the compiler

    return block_costs(
        evidence.fit, evidence.weight, evidence.rate, cells,
        damping=damping_for(evidence), threads=threads,
    )  # fmt: skip


def _greedy(evidence: Evidence, threads: int) -> NDArray[np.float32]:
    from onnx_sipp.pruning.greedy import greedy_costs  # noqa: PLC0415 - loads the compiler

    damping = damping_for(evidence)
    return greedy_costs(evidence.fit, evidence.weight, damping=damping, threads=threads)


@dataclass(frozen=True)
class Proposal:
    """What a candidate would keep.

    Attributes:
        kept: mask, ``[group, out, fan_in]``.
        start: weights that a refit may start from, None for those before.
    """

    kept: Mask
    start: Float | None = None


Candidate = Callable[[Evidence, int, int, int], Proposal]


def _ordered(evidence: Evidence, keep: int, seed: int, threads: int) -> Proposal:
    """By the cost of removal: exact greedy where that is affordable, else gradual."""
    del seed
    if greedy_work(evidence.weight.shape) <= GREEDY_LIMIT:
        if evidence.cells is not None and evidence.cells.kept:
            return Proposal(_n_of_m(evidence, evidence.cells, keep, threads))
        (costs,) = output_costs(evidence, [evidence.by_neuron], threads).values()
        return Proposal(evidence.pick(costs, keep))
    kept, start = gradual_mask(
        evidence.fit,
        evidence.weight,
        keep,
        evidence.pick,
        gain=evidence.gain,
        damping=damping_for(evidence),
        schedule=evidence.effort.schedule,
        steps=evidence.effort.stage_steps,
        threads=threads,
        alive=evidence.alive,
    )
    return Proposal(kept, start)


def _n_of_m(evidence: Evidence, cells: Cells, keep: int, threads: int) -> Mask:
    from onnx_sipp.pruning.patterned import n_of_m  # noqa: PLC0415 - loads the compiler

    kept = cells.count_in_cell(keep, evidence.units)
    damping = damping_for(evidence)
    return n_of_m(
        evidence.fit, evidence.weight, replace(cells, kept=kept), damping=damping, threads=threads
    )


def _magnitude(evidence: Evidence, keep: int, seed: int, threads: int) -> Proposal:
    """By |w| · gain."""
    del seed, threads
    return Proposal(evidence.pick(np.abs(evidence.weight * evidence.gain[..., None]), keep))


def _activation(evidence: Evidence, keep: int, seed: int, threads: int) -> Proposal:
    """By |w| · rms(a) · gain."""
    del seed, threads
    score = activation_scores(evidence.fit, evidence.weight, evidence.gain)
    return Proposal(evidence.pick(score, keep))


def _surgeon(evidence: Evidence, keep: int, seed: int, threads: int) -> Proposal:
    """By w² / [H⁻¹]_jj, the diagonal of Optimal Brain Surgeon."""
    del seed, threads
    shift = damping_for(evidence) * evidence.fit.scale(evidence.weight)
    spread = evidence.fit.moments.inverse_diagonal(shift)[:, None]
    score = (evidence.weight * evidence.gain[..., None]) ** 2 / np.maximum(
        spread, np.finfo(np.float64).tiny
    )
    return Proposal(evidence.pick(score, keep))


def _sensitive(evidence: Evidence, keep: int, seed: int, threads: int) -> Proposal:
    """By SiPP's sensitivities."""
    del seed, threads
    return Proposal(evidence.pick(evidence.sensitivity, keep))


def _sampled(evidence: Evidence, keep: int, seed: int, threads: int) -> Proposal:
    """Drawn with SiPP's probabilities, the same share of every neuron."""
    del threads
    weight = evidence.weight.reshape(-1, evidence.weight.shape[-1])
    alive = np.count_nonzero(weight, axis=-1)
    counts = apportion(np.full(len(weight), weight.shape[-1]), alive, keep)
    # Weights that no sample needed can still fill a row, last.
    floor = 1e-12 * np.abs(weight.astype(np.float64))
    probability = np.maximum(evidence.sensitivity.reshape(weight.shape), floor)
    drawn = sample_halves(weight, np.where(weight != 0, probability, 0), counts, seed)
    return Proposal((drawn != 0).reshape(evidence.weight.shape))


CANDIDATES: Mapping[str, Candidate] = {
    "removal-cost": _ordered,
    "magnitude": _magnitude,
    "activation": _activation,
    "surgeon": _surgeon,
    "sipp-det": _sensitive,
    "sipp-rand": _sampled,
}
