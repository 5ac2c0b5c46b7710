"""What a layer is refitted on, and how a refit of it is judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.pruning.cells import Cells, alive_units, units
from onnx_sipp.pruning.effort import Effort, effort_for
from onnx_sipp.pruning.selection import Mask, apportion, top, top_rows
from onnx_sipp.statistics.regression import Regression

__all__ = ["Evidence", "damping_for", "product_work", "spread_rows"]

Float = NDArray[np.floating]
Float64 = NDArray[np.float64]

_DAMPING = 0.03


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
        whole: shape of the weight of the whole layer, where these are some of its neurons.
        by_neuron: every neuron keeps the same share of its weights, and its error counts relative
            to the power of its own output; measured at the model's outputs, see `alone`.
        bias_is_new: there is a place for a bias, but none so far: it has to be worth it.
        cells: of the pattern that masks have to follow, None if there is none.
        hasty: whether the choice is only to compare budgets.
        too_large: samples did reach the layer, but with numbers too large to learn from.
    """

    weight: Float
    sensitivity: Float
    fit: Regression
    check: Regression | None
    gain: Float64
    samples: int
    neurons: NDArray[np.intp] | None = None
    whole: tuple[int, ...] = ()
    by_neuron: bool = False
    bias_is_new: bool = False
    cells: Cells | None = None
    hasty: bool = False
    too_large: bool = False

    def without_bias(self) -> Evidence:
        """The same for a layer that gets no bias if it has none."""
        return (
            replace(self, fit=self.fit.uncentred(), bias_is_new=False) if self.bias_is_new else self
        )

    @classmethod
    def unseen(cls, weight: Float, sensitivity: Float, cells: Cells | None = None) -> Evidence:
        """Evidence for a layer that no sample reached: errors are those of its weights."""
        fit = Regression.blind(weight)
        gain = np.ones(weight.shape[:2])
        return cls(weight, sensitivity, fit, None, gain, samples=0, cells=cells)

    @property
    def is_seen(self) -> bool:
        """Whether any sample reached the layer."""
        return self.fit.count > 0

    @property
    def units(self) -> int:
        """How many parts of the weight stay or go by themselves: weights, or cells of a pattern."""
        return units(self.cells, self.weight.size)

    @property
    def alive(self) -> int:
        """Those of them that are not zero."""
        return alive_units(self.cells, self.weight)

    @property
    def effort(self) -> Effort:
        """How much is tried, by the size of the whole layer."""
        return effort_for(product_work(self.whole or self.weight.shape), hasty=self.hasty)

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

    def at_output(self, costs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Costs of removal at the neurons' own sums, as they count by `rate`.

        Args:
            costs: shape of the weight, or of that of `some_neurons`.
        """
        whole = costs.shape == self.weight.shape
        rate = (self if whole else self.some_neurons()).rate[..., None]
        result: NDArray[np.float32] = costs * rate.astype(np.float32)
        return result

    def pick(self, score: Float, keep: int) -> Mask:
        """The weights with the highest scores; the same share of every neuron if `by_neuron`.

        Args:
            score: shape of the weight; or per cell, where a pattern's cells go as a whole.
            keep: how many units stay.
        """
        if self.cells is None and not self.by_neuron:
            return top(score, self.weight, keep)
        magnitude = np.abs(self.weight)
        if self.cells is not None:
            return self.cells.best(score, magnitude, keep, by_band=self.by_neuron)
        fan_in = self.weight.shape[-1]
        alive = np.count_nonzero(magnitude, axis=-1).ravel()
        counts = apportion(np.full(alive.size, fan_in), alive, keep)
        return top_rows(score, magnitude, counts.reshape(magnitude.shape[:2]))

    def some_neurons(self) -> Evidence:
        """The same for some neurons of each group, evenly spread; all if there are few."""
        outs = self.weight.shape[1]
        count = self.effort.neurons
        if outs <= 2 * count:
            return self
        rows = spread_rows(outs, count, 1 if self.cells is None else self.cells.rows)
        return replace(
            self,
            weight=self.weight[:, rows],
            sensitivity=self.sensitivity[:, rows],
            fit=self.fit.of_neurons(rows),
            check=None if self.check is None else self.check.of_neurons(rows),
            gain=self.gain[:, rows],
            neurons=rows,
            whole=self.whole or self.weight.shape,
        )

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """What an array ``[group, out, fan_in]`` of the whole layer holds of these neurons."""
        return values if self.neurons is None else values[:, self.neurons]

    def error(self, weight: Float) -> float:
        """Relative squared output error on the held-out samples, with the bias from calibration."""
        judge = self.check or self.fit
        errors = judge.errors_with(weight, self.fit.best_bias(weight))
        power = float(np.sum(self.rate * judge.spread()))
        total = float(np.sum(self.rate * errors))
        return total / (power if power > 0 else 1.0)


def spread_rows(outs: int, count: int, band: int) -> NDArray[np.intp]:
    """Some neurons, evenly spread, in whole bands of a pattern's cells.

    Args:
        outs: neurons there are.
        count: how many to take.
        band: neurons of a cell, which divide them.
    """
    bands = np.linspace(0, outs // band - 1, max(1, count // band)).round().astype(np.intp)
    rows: NDArray[np.intp] = (bands[:, None] * band + np.arange(band)).ravel()
    return rows


def product_work(shape: tuple[int, ...]) -> float:
    """Multiplications of one product of the weights ``[group, out, fan_in]`` with H."""
    groups, outs, fan_in = shape
    return float(groups * outs * fan_in**2)


def damping_for(evidence: Evidence) -> float:
    """λ to begin with: more where few samples face a wide fan-in.

    Patches of one sample are alike; beyond some dozens they add little.
    """
    problem = evidence.fit
    if not evidence.is_seen:
        return _DAMPING
    independent = min(problem.count, 64 * evidence.samples)
    return _DAMPING + 0.5 * float(problem.fan_in) / max(1, independent)
