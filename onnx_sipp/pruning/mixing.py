"""Adaptive mixing: try several ways to choose a layer's weights, keep the one that errs least.

The paper mixes sampling and determinism by the smaller bound. Here candidates are compared by what
matters after the refit: the output error on samples that took no part in it. No single score wins
on every layer; see docs/accuracy.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.candidates import CANDIDATES, Proposal
from onnx_sipp.pruning.compensation import refit
from onnx_sipp.pruning.evidence import Evidence, damping_for
from onnx_sipp.pruning.selection import Mask, kept_only

__all__ = ["Choice", "choose", "probe", "resettle", "settle"]

Float = NDArray[np.floating]
Float64 = NDArray[np.float64]

_TRIED_DAMPINGS = (0.3, 1.0, 3.0)
# Asks for an inverse of H.
_INVERTING = "surgeon"
# Draws single weights, for which a pattern has no room.
_DRAWN = "sipp-rand"

# To what share of the squared error a new bias has to bring it down: it changes the user's graph.
_WORTH_A_BIAS = 0.95


@dataclass(frozen=True)
class Choice:
    """What became of a layer.

    Attributes:
        kept: mask, ``[group, out, fan_in]``.
        weight: same shape.
        bias: ``[group, out]``, what W a is shifted by.
        candidate: which way of choosing won.
        damping: λ that the refit ended with; 0 if the refit was not used.
        error_before: relative squared error on held-out samples without the refit.
        error: the same with what is used.
    """

    kept: Mask
    weight: Float
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
    damping: float | None = None,
) -> Choice:
    """Choose a layer's weights by the best candidate, and refit them.

    Args:
        evidence: of the layer.
        keep: how many weights, or cells of a pattern, stay.
        seed: of sampled candidates.
        names: keys of `CANDIDATES` to compare.
        threads: for the greedy order.
        refits: whether to refit at all; if not, candidates are compared as they are.
        damping: of the refit, None to find out.
    """
    if len(names) == 1:
        proposal = CANDIDATES[names[0]](evidence, keep, seed, threads)
        return settle(evidence, proposal, names[0], threads=threads, refits=refits, damping=damping)
    if evidence.cells is not None:
        names = [name for name in names if name != _DRAWN]
    if not evidence.effort.inverts or evidence.fit.is_very_wide:
        names = [name for name in names if name != _INVERTING]
    # A wide layer is tried out on some of its neurons; the winner then chooses for all.
    jury = evidence.some_neurons()
    share = round(keep * jury.units / evidence.units)
    proposals = [CANDIDATES[name](jury, share, seed, threads) for name in names]
    errors = _screen(jury, proposals, threads=threads, refits=refits)
    best = int(np.argmin(errors))
    name, proposal = names[best], proposals[best]
    if jury is not evidence:
        proposal = CANDIDATES[name](evidence, keep, seed, threads)
    return settle(evidence, proposal, name, threads=threads, refits=refits, damping=damping)


def _screen(
    jury: Evidence, proposals: Sequence[Proposal], *, threads: int, refits: bool
) -> list[float]:
    """Held-out errors of masks after a short refit, judged by some of the neurons."""
    if not refits:
        return [jury.error(kept_only(jury.weight, made.kept)) for made in proposals]
    return _trials(
        jury,
        [made.kept for made in proposals],
        [made.start for made in proposals],
        [damping_for(jury)] * len(proposals),
        threads,
    )


def _trials(
    jury: Evidence,
    kept: Sequence[Mask],
    starts: Sequence[Float | None],
    dampings: Sequence[float],
    threads: int,
) -> list[float]:
    """Held-out errors after short refits, all at once: that reads H as often as a single one."""
    outs = jury.weight.shape[1]
    count = len(kept)
    rows = np.tile(np.arange(outs), count)
    found = refit(
        jury.fit.of_neurons(rows),
        jury.weight[:, rows],
        np.concatenate(kept, axis=1),
        damping=np.repeat(dampings, outs),
        steps=jury.effort.screening_steps,
        start=np.concatenate([jury.weight if s is None else s for s in starts], axis=1),
        threads=threads,
    )
    return [jury.error(weight) for weight in np.split(found.weight, count, axis=1)]


def probe(evidence: Evidence, keep: int, *, threads: int) -> Choice:
    """A cheap choice, to see what pruning this layer does to the model; no error is measured."""
    evidence = evidence.without_bias()
    kept = CANDIDATES["activation"](evidence, keep, 0, threads).kept
    found = refit(
        evidence.fit, evidence.weight, kept,
        damping=damping_for(evidence), threads=threads,
        steps=evidence.effort.screening_steps,
    )  # fmt: skip
    bias = evidence.fit.best_bias(found.weight)
    return Choice(kept, found.weight, bias, "activation", 0.0, math.nan, math.nan)


def settle(
    evidence: Evidence,
    proposal: Proposal,
    candidate: str,
    *,
    threads: int,
    refits: bool = True,
    damping: float | None = None,
) -> Choice:
    """Refit the kept weights as errs least on held-out samples.

    A refit that is no better than leaving the kept weights alone is not used, nor a new bias that
    hardly helps.

    Args:
        evidence: of the layer.
        proposal: which weights stay.
        candidate: whose proposal it is.
        threads: of the refit.
        refits: whether to refit at all.
        damping: λ, None to find out which errs least.
    """
    settled = partial(
        _settled, proposal=proposal, candidate=candidate, threads=threads, refits=refits,
        damping=damping,
    )  # fmt: skip
    plain = settled(evidence.without_bias())
    if not evidence.bias_is_new or not refits:
        return plain
    shifted = settled(evidence)
    return shifted if shifted.error < _WORTH_A_BIAS * plain.error else plain


def _settled(
    evidence: Evidence,
    proposal: Proposal,
    candidate: str,
    threads: int,
    damping: float | None,
    *,
    refits: bool,
) -> Choice:
    kept = proposal.kept
    plain = kept_only(evidence.weight, kept)
    judges = evidence if evidence.effort.judges_all else evidence.some_neurons()
    before = judges.error(judges.of(plain))
    if not refits:
        bias = np.zeros(kept.shape[:2])
        return Choice(kept, plain, bias, candidate, 0.0, before, before)
    if damping is None:
        damping = _best_damping(evidence.some_neurons(), proposal, threads)
    solution = refit(
        evidence.fit, evidence.weight, kept,
        damping=damping, steps=evidence.effort.steps,
        start=proposal.start, threads=threads,
    )  # fmt: skip
    error = judges.error(judges.of(solution.weight))
    if not error < before:
        return Choice(kept, plain, evidence.fit.best_bias(plain), candidate, 0.0, before, before)
    weight = _none_lost(solution.weight, kept, plain)
    bias = evidence.fit.best_bias(weight)
    return Choice(kept, weight, bias, candidate, damping, before, error)


def resettle(evidence: Evidence, choice: Choice, *, threads: int) -> Choice:
    """Refit the same weights towards other targets, from where they are.

    Args:
        evidence: with the new targets.
        choice: what was settled on; its error is not measured anew.
        threads: of the refit.
    """
    solution = refit(
        evidence.fit, evidence.weight, choice.kept,
        damping=choice.damping, steps=evidence.effort.steps,
        start=choice.weight, threads=threads,
    )  # fmt: skip
    weight = _none_lost(solution.weight, choice.kept, choice.weight)
    return replace(choice, weight=weight, bias=evidence.fit.best_bias(weight))


def _none_lost(weight: Float, kept: Mask, before: Float) -> Float:
    """Refitted weights; a kept one that comes out as zero, one zero too many, is as before."""
    lost = kept & (weight == 0)
    return np.where(lost, before, weight) if lost.any() else weight


def _best_damping(jury: Evidence, proposal: Proposal, threads: int) -> float:
    """The damping that errs least on the held-out samples."""
    dampings = [factor * damping_for(jury) for factor in _TRIED_DAMPINGS]
    count = len(dampings)
    start = None if proposal.start is None else jury.of(proposal.start)
    errors = _trials(jury, [jury.of(proposal.kept)] * count, [start] * count, dampings, threads)
    return min(zip(errors, dampings, strict=True))[1]
