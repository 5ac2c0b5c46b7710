"""Adaptive mixing: try several ways to choose a layer's weights, keep the one that errs least.

The paper mixes sampling and determinism by the smaller bound. Here candidates are compared by what
matters after the refit: the output error on samples that took no part in it. No single score wins
on every layer; see docs/accuracy.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.compensation import refit
from onnx_sipp.pruning.removal import gradual_costs, gradual_mask, greedy_work, product_work
from onnx_sipp.pruning.sampling import sample_halves
from onnx_sipp.pruning.selection import Mask, apportion, top, top_rows
from onnx_sipp.statistics.gram import Regression

__all__ = [
    "CANDIDATES",
    "Choice",
    "Evidence",
    "choose",
    "damping_for",
    "probe",
    "removal_costs",
    "settle",
]

Float = NDArray[np.floating]
Float64 = NDArray[np.float64]

# Multiplications that the exact greedy order of one layer may take.
GREEDY_LIMIT = 1.5e10
# Multiplications of a product with H from which on every product is thought over.
LARGE_PRODUCT = 2e9
# Neurons that stand for all when a large layer is only to be judged.
_NEURONS = 128
DAMPING = 0.03
_TRIED_DAMPINGS = (0.3, 1.0, 3.0)
# Conjugate gradient steps: to compare candidates, for a layer whose products are costly, and else.
_SCREENING_STEPS = 8
_LARGE_STEPS = 10
_STEPS = 20


@dataclass(frozen=True)
class Evidence:
    """What a layer is refitted on.

    Attributes:
        weight: ``[group, out, fan_in]``, before this refit.
        sensitivity: SiPP's ``max`` sensitivities of the dense layer, same shape.
        fit: least squares over the calibration samples.
        check: the same over the held-out samples, not centred; None if there are none.
        gain: ``[group, out]``, factor from W a to what the next nodes see.
        samples: calibration samples.
        neurons: which neurons these are of, None for all.
        by_neuron: every neuron keeps the same share of its weights, and its error counts relative
            to the power of its own output; measured at the model's outputs, see `compensate`.
    """

    weight: Float
    sensitivity: Float
    fit: Regression
    check: Regression | None
    gain: Float64
    samples: int
    neurons: NDArray[np.intp] | None = None
    by_neuron: bool = False

    @property
    def rate(self) -> Float64:
        """``[group, out]``, what the squared error of a neuron counts."""
        if not self.by_neuron:
            return self.gain**2
        spread = self.fit.spread()
        floor = 1e-6 * float(spread.max(initial=0.0)) or 1.0
        result: Float64 = np.where(self.gain != 0, 1.0, 0.0) / np.maximum(spread, floor)
        return result

    @property
    def power(self) -> float:
        """What the output's power counts by `rate`."""
        return float(np.sum(self.rate * self.fit.spread()))

    def pick(self, score: Float, keep: int) -> Mask:
        """The weights with the highest scores; the same share of every neuron if `by_neuron`."""
        magnitude = np.abs(self.weight)
        if not self.by_neuron:
            return top(score, magnitude, keep)
        fan_in = self.weight.shape[-1]
        alive = np.count_nonzero(magnitude, axis=-1).ravel()
        counts = apportion(np.full(alive.size, fan_in), alive, keep)
        return top_rows(score, magnitude, counts.reshape(magnitude.shape[:2]))

    def some_neurons(self) -> Evidence:
        """The same for some neurons of each group, evenly spread; all if there are few."""
        outs = self.weight.shape[1]
        if outs <= 2 * _NEURONS:
            return self
        rows = np.linspace(0, outs - 1, _NEURONS).round().astype(np.intp)
        return replace(
            self,
            weight=self.weight[:, rows],
            sensitivity=self.sensitivity[:, rows],
            fit=self.fit.of_neurons(rows),
            check=None if self.check is None else self.check.of_neurons(rows),
            gain=self.gain[:, rows],
            neurons=rows,
        )

    def error(self, weight: Float) -> float:
        """Relative squared output error on the held-out samples, with the bias from calibration."""
        judge = self.check or self.fit
        errors = judge.errors_with(weight, self.fit.best_bias(weight))
        power = float(np.sum(self.rate * judge.spread()))
        total = float(np.sum(self.rate * errors))
        return total / (power if power > 0 else 1.0)


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


def damping_for(evidence: Evidence) -> float:
    """λ to begin with: more where few samples face a wide fan-in.

    Patches of one sample are alike; beyond some dozens they add little.
    """
    problem = evidence.fit
    fan_in = problem.gram.shape[-1]
    independent = min(problem.count, 64 * evidence.samples)
    return DAMPING + 0.5 * float(fan_in) / max(1, independent)


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
    large = product_work(evidence.weight.shape) > LARGE_PRODUCT
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
    floor = 1e-12 * np.abs(weight)
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
    kept = _activation(evidence, keep, 0, threads)
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
    large = product_work(evidence.weight.shape) > LARGE_PRODUCT
    steps = _LARGE_STEPS if large else _STEPS
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
