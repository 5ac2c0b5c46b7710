"""Exact greedy removal within a pattern, compiled; and swaps that mend it.

Both follow Optimal Brain Surgeon (Frantar & Alistarh, arXiv 2208.11580): the cost of a removal is
the rise of the squared error once the weights that are left have been refitted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.compiled import compiled
from onnx_sipp.pruning.cells import Cells
from onnx_sipp.pruning.selection import Mask
from onnx_sipp.statistics.regression import Regression
from onnx_sipp.threads import side_by_side

__all__ = ["block_costs", "n_of_m"]

Float = NDArray[np.floating]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Index = NDArray[np.int64]

# Swaps of a neuron, per cell of it, after which it is good enough.
_SWAPS = 4


def n_of_m(
    problem: Regression, weight: Float, cells: Cells, *, damping: float, threads: int
) -> Mask:
    """Choose N of every M inputs per neuron: greedy removal, then the best swaps within cells.

    A neuron's error with its weights refitted is followed exactly through every removal and swap,
    by pivots of the normal equations, until no swap of two weights of a cell lowers it.

    Args:
        problem: H and B of the layer.
        weight: ``[group, out, fan_in]``, what damping pulls towards; zeros in it stay zero.
        cells: with ``kept``.
        damping: λ, see `Regression.scale`.
        threads: neurons worked on at the same time.
    """
    kept = np.zeros(weight.shape, np.bool_)
    owner = np.empty(weight.shape[-1], np.int64)
    places = cells.places(weight.shape[-1])
    owner[places] = np.arange(len(places))[:, None]
    for group, old in enumerate(weight):
        hessian, shift = problem.damped(group, damping, weight)
        cross = problem.cross[group] + shift * old
        inverse = np.linalg.inv(hessian)
        start = np.concatenate([-inverse, np.zeros((1, len(inverse)))])
        optimum = np.ascontiguousarray(cross @ inverse, np.float64)
        parts = np.array_split(np.arange(len(old)), min(len(old), 4 * threads))

        def work(
            rows: NDArray[np.intp],
            start: Float64 = start,
            optimum: Float64 = optimum,
            used: Mask = old != 0,
            out: Mask = kept[group],
        ) -> None:
            out[rows] = _choose_rows(start, optimum[rows], used[rows], owner, places, cells.kept)

        side_by_side(work, parts, threads)
    return kept


def block_costs(
    problem: Regression,
    weight: Float,
    rate: Float64,
    cells: Cells,
    *,
    damping: float,
    threads: int,
) -> Float32:
    """Cost of removing each block in the exact greedy order.

    Neurons of a block lose their inputs together, so they share the inverse of H as it shrinks.

    Args:
        problem: H and B of the layer.
        weight: ``[group, out, fan_in]``, what damping pulls towards; zeros in it stay zero.
        rate: ``[group, out]``, what the squared error of a neuron counts.
        cells: that go as a whole.
        damping: λ, see `Regression.scale`.
        threads: bands of neurons worked on at the same time.

    Returns:
        float32 ``[group, out / rows, cells]``, never falling along a band's order; 0 for blocks of
        stored zeros.
    """
    groups, outs, fan_in = weight.shape
    places = cells.places(fan_in)
    costs = np.zeros((groups, outs // cells.rows, len(places)), np.float32)
    used: Mask = np.any(cells.gathered(weight != 0), axis=-1)
    for group, old in enumerate(weight):
        hessian, shift = problem.damped(group, damping, weight)
        inverse = np.ascontiguousarray(np.linalg.inv(hessian))
        optimum = (problem.cross[group] + shift * old) @ inverse
        weighed = np.ascontiguousarray(optimum * np.sqrt(rate[group])[:, None], np.float64)
        scaled = weighed.reshape(-1, cells.rows, fan_in)
        parts = np.array_split(np.arange(len(scaled)), min(len(scaled), 4 * threads))

        def work(
            bands: NDArray[np.intp],
            inverse: Float64 = inverse,
            scaled: Float64 = scaled,
            used: Mask = used[group],
            out: Float32 = costs[group],
        ) -> None:
            out[bands] = _block_rows(inverse, scaled[bands], used[bands], places)

        side_by_side(work, parts, threads)
    return costs


@compiled
def _pivot(table: Float64, at: int) -> None:
    """Take an input in or out of the regression.

    The table is symmetric but for its last row, the weights of inputs that are in and the
    correlations of those that are out; with −H⁻¹ among inputs that are in.
    """
    row = table[at].copy()
    d = row[at]
    size = table.shape[1]
    sign = np.float64(1) if d > 0 else np.float64(-1)
    last = table[size, at]
    for i in range(size):
        if i != at:
            factor = row[i] / d
            for j in range(size):
                table[i, j] -= factor * row[j]
    factor = last / d
    for j in range(size):
        table[size, j] -= factor * row[j]
    for j in range(size):
        table[at, j] = sign * row[j] / d
        table[j, at] = table[at, j]
    table[at, at] = -1 / d
    table[size, at] = sign * last / d


@compiled
def _choose_rows(
    start: Float64, optimum: Float64, used: Mask, owner: Index, places: Index, kept: int
) -> Mask:
    rows, fan_in = optimum.shape
    chosen = np.zeros((rows, fan_in), np.bool_)
    for row in range(rows):
        table = start.copy()
        table[fan_in] = optimum[row]
        inside = np.ones(fan_in, np.bool_)
        left = np.full(len(places), places.shape[1])
        for i in range(fan_in):
            if not used[row, i]:
                _pivot(table, i)
                inside[i] = False
                left[owner[i]] -= 1
        while True:
            best, lowest = -1, np.inf
            for i in range(fan_in):
                if inside[i] and left[owner[i]] > kept:
                    cost = table[fan_in, i] ** 2 / -table[i, i]
                    if cost < lowest:
                        best, lowest = i, cost
            if best < 0:
                break
            _pivot(table, best)
            inside[best] = False
            left[owner[best]] -= 1
        _swap(table, inside, used[row], places)
        chosen[row] = inside
    return chosen


@compiled
def _swap(table: Float64, inside: Mask, used: Mask, places: Index) -> None:
    """Swap weights of one cell while the best swap of all helps."""
    fan_in = len(inside)
    for _ in range(_SWAPS * len(places)):
        out, into, lowest = -1, -1, 0.0
        for cell in places:
            for i in cell:
                if not inside[i]:
                    continue
                w, h = table[fan_in, i], -table[i, i]
                for j in cell:
                    if inside[j] or not used[j] or table[j, j] <= 0:
                        continue
                    g, s, u = table[fan_in, j], table[j, j], table[i, j]
                    change = (w - u * g / s) ** 2 / (h + u * u / s) - g * g / s
                    if change < lowest:
                        out, into, lowest = i, j, change
        if out < 0:
            break
        _pivot(table, into)
        _pivot(table, out)
        inside[into], inside[out] = True, False


@compiled
def _block_rows(inverse: Float64, scaled: Float64, used: Mask, places: Index) -> Float32:
    bands, count = used.shape
    costs = np.zeros((bands, count), np.float32)
    for band in range(bands):
        h, w = inverse.copy(), scaled[band].copy()
        there = np.ones(count, np.bool_)
        worst = 0.0
        for _ in range(count):
            best, lowest = -1, np.inf
            for cell in range(count):
                if there[cell]:
                    if not used[band, cell]:
                        best, lowest = cell, 0.0
                        break
                    cost = _block_cost(h, w, places[cell])
                    if cost < lowest:
                        best, lowest = cell, cost
            if used[band, best]:
                worst = max(worst, lowest)
                costs[band, best] = worst
            there[best] = False
            _take_out(h, w, places[best])
    return costs


@compiled
def _block_cost(h: Float64, w: Float64, cell: Index) -> float:
    """Σ over neurons of wᵀ (H⁻¹ of the cell)⁻¹ w, by its Cholesky factor."""
    size = len(cell)
    factor = np.empty((size, size))
    for i in range(size):
        for j in range(i + 1):
            value = h[cell[i], cell[j]]
            for k in range(j):
                value -= factor[i, k] * factor[j, k]
            factor[i, j] = value / factor[j, j] if i > j else np.sqrt(max(value, 1e-300))
    total = 0.0
    part = np.empty(size)
    for row in range(len(w)):
        for i in range(size):
            value = w[row, cell[i]]
            for k in range(i):
                value -= factor[i, k] * part[k]
            part[i] = value / factor[i, i]
            total += part[i] * part[i]
    return total


@compiled
def _take_out(h: Float64, w: Float64, cell: Index) -> None:
    """Refit without the inputs of a cell, whose rows and columns become 0."""
    size = len(h)
    for at in cell:
        column = h[at].copy()
        pivot = column[at]
        for row in range(len(w)):
            change = w[row, at] / pivot
            for j in range(size):
                w[row, j] -= change * column[j]
            w[row, at] = 0.0
        for i in range(size):
            factor = column[i] / pivot
            if factor != 0.0:
                for j in range(size):
                    h[i, j] -= factor * column[j]
        h[at, :] = 0.0
        h[:, at] = 0.0
