"""Adaptive mixing: try several ways to choose a layer's weights, keep the one that errs least.

The paper mixes sampling and determinism by the smaller bound. Here candidates are compared by what
matters after the refit: the output error on samples that took no part in it. No single score wins
on every layer; see docs/accuracy.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.candidates import CANDIDATES, is_large
from onnx_sipp.pruning.compensation import refit
from onnx_sipp.pruning.evidence import Evidence, damping_for
from onnx_sipp.pruning.selection import Mask

__all__ = ["Choice", "choose", "probe", "settle"]

Float64 = NDArray[np.float64]

_TRIED_DAMPINGS = (0.3, 1.0, 3.0)
# Conjugate gradient steps: to compare candidates, for a layer whose products are costly, and else.
_SCREENING_STEPS = 8
_LARGE_STEPS = 10
_STEPS = 20


@dataclass(frozen=True)
class Choice:
    """What became of a layer.

    Attributes:
        kept: mask, ``[group, out, fan_in]``.
        weight: float64, same shape.
        bias: ``[group, out]``, what W a is shifted by.
        candidate: which way of choosing won.
        damping: λ that the refit ended with; 0 if the refit was not used.
        error_before: relative squared error on held-out samples without the refit.
        error: the same with what is used.
    """

    kept: Mask
    weight: Float64
    bias: Float64
    candidate: str
    damping: float
    error_before: float
    error: float


def choose(
    evidence: Evidence,
    keep: int,
    seed: int,
    *,
    names: Sequence[str],
    threads: int,
    refits: bool = True,
) -> Choice:
    """Choose a layer's weights by the best candidate, and refit them.

    Args:
        evidence: of the layer.
        keep: how many weights stay.
        seed: of sampled candidates.
        names: keys of `CANDIDATES` to compare.
        threads: for the greedy order.
        refits: whether to refit at all; if not, candidates are compared as they are.
    """
    if len(names) == 1:
        kept = CANDIDATES[names[0]](evidence, keep, seed, threads)
        return settle(evidence, kept, names[0], threads=threads, refits=refits)
    # A large layer is tried out on some of its neurons; the winner then chooses for all.
    jury = evidence.some_neurons()
    share = round(keep * jury.weight.size / evidence.weight.size)
    best: tuple[float, str, Mask] | None = None
    for name in names:
        kept = CANDIDATES[name](jury, share, seed, threads)
        error = _screen(jury, kept, threads=threads, refits=refits)
        if best is None or error < best[0]:
            best = (error, name, kept)
    assert best is not None
    _, name, kept = best
    if jury is not evidence:
        kept = CANDIDATES[name](evidence, keep, seed, threads)
    return settle(evidence, kept, name, threads=threads, refits=refits)


def _screen(jury: Evidence, kept: Mask, *, threads: int, refits: bool) -> float:
    """Held-out error of a mask after a short refit, judged by some of the neurons."""
    if not refits:
        return jury.error(np.where(kept, jury.weight, 0))
    trial = refit(
        jury.fit,
        jury.weight,
        kept,
        damping=damping_for(jury),
        steps=_SCREENING_STEPS,
        threads=threads,
    )
    return jury.error(trial.weight)


def probe(evidence: Evidence, keep: int, *, threads: int) -> Choice:
    """A cheap choice, to see what pruning this layer does to the model."""
    kept = CANDIDATES["activation"](evidence, keep, 0, threads)
    found = refit(
        evidence.fit, evidence.weight, kept,
        damping=damping_for(evidence), steps=_SCREENING_STEPS, threads=threads,
    )  # fmt: skip
    error = evidence.error(found.weight)
    bias = evidence.fit.best_bias(found.weight)
    return Choice(kept, found.weight, bias, "activation", 0.0, error, error)


def settle(
    evidence: Evidence, kept: Mask, candidate: str, *, threads: int, refits: bool = True
) -> Choice:
    """Refit the kept weights with the damping that errs least on held-out samples.

    A refit that is no better than leaving the kept weights alone is not used.
    """
    plain = np.where(kept, evidence.weight, 0).astype(np.float64)
    before = evidence.error(plain)
    if not refits:
        bias = np.zeros(kept.shape[:2])
        return Choice(kept, plain, bias, candidate, 0.0, before, before)
    damping = _best_damping(evidence.some_neurons(), kept, threads)
    steps = _LARGE_STEPS if is_large(evidence) else _STEPS
    solution = refit(
        evidence.fit, evidence.weight, kept, damping=damping, steps=steps, threads=threads
    )
    error = evidence.error(solution.weight)
    if not error < before:
        return Choice(kept, plain, evidence.fit.best_bias(plain), candidate, 0.0, before, before)
    # A kept weight that comes out as zero would be one zero too many.
    weight = np.where(kept & (solution.weight == 0), plain, solution.weight)
    bias = evidence.fit.best_bias(weight)
    return Choice(kept, weight, bias, candidate, damping, before, error)


def _best_damping(jury: Evidence, kept: Mask, threads: int) -> float:
    mask = kept if jury.neurons is None else kept[:, jury.neurons]
    tried = [factor * damping_for(jury) for factor in _TRIED_DAMPINGS]
    errors = []
    for damping in tried:
        solution = refit(
            jury.fit, jury.weight, mask, damping=damping, steps=_LARGE_STEPS, threads=threads
        )
        errors.append(jury.error(solution.weight))
    return tried[int(np.argmin(errors))]
