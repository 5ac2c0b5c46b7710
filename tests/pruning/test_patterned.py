from itertools import combinations

import numpy as np
import pytest
from problems import layer, mixed_inputs, regression

from onnx_sipp.pruning.cells import Cells
from onnx_sipp.pruning.patterned import block_costs, n_of_m
from onnx_sipp.pruning.patterns import Blocks, NofM

DAMPING = 0.01


def shift_of(problem, group):
    return np.full(problem.fan_in, DAMPING * np.trace(problem.gram[group]) / problem.fan_in)


def best_error(problem, weight, group, row, inputs):
    """Damped squared error of one neuron refitted on some of its inputs, by a plain solver."""
    at = np.array(sorted(inputs), int)
    shift = shift_of(problem, group)
    h = problem.gram[group] + np.diag(shift)
    b = problem.cross[group, row] + shift * weight[group, row]
    power = problem.power[group, row] + np.sum(shift * weight[group, row] ** 2)
    return power - b[at] @ np.linalg.solve(h[np.ix_(at, at)], b[at])


def chosen(problem, weight, cells, threads=1):
    return n_of_m(problem, weight, cells, damping=DAMPING, threads=threads)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (4, 8), (1, 2)])
def test_no_swap_within_a_cell_lowers_the_error(n, m):
    problem, weight = layer(1, (2, 3, 16), correlation=2)
    cells = Cells.of(NofM(n, m), 2)
    kept = chosen(problem, weight, cells)
    assert np.all(cells.gathered(kept).sum(axis=-1) == n)
    for group in range(2):
        for row in range(3):
            inputs = set(np.flatnonzero(kept[group, row]))
            error = best_error(problem, weight, group, row, inputs)
            for cell in cells.places(16):
                for out in inputs & set(cell):
                    for into in set(cell) - inputs:
                        other = inputs - {out} | {into}
                        assert best_error(problem, weight, group, row, other) > error * (1 - 1e-9)


def test_the_best_of_all_masks_is_found_or_nearly():
    gaps = []
    for seed in range(12):
        problem, weight = layer(seed, (1, 1, 8), correlation=2)
        cells = Cells.of(NofM(2, 4), 1)
        pairs = [list(combinations(cell, 2)) for cell in cells.places(8)]
        every = [best_error(problem, weight, 0, 0, {*a, *b}) for a in pairs[0] for b in pairs[1]]
        found = np.flatnonzero(chosen(problem, weight, cells)[0, 0])
        gaps.append(best_error(problem, weight, 0, 0, found) / min(every) - 1)
    assert np.median(gaps) < 1e-9
    assert max(gaps) < 0.5


def plain_choice(problem, weight, row, cells, kept):
    """Greedy removal and the best swaps, each input tried by solving anew."""

    def error(inputs):
        return best_error(problem, weight, 0, row, inputs)

    inputs = set(range(problem.fan_in))
    while True:
        free = [i for cell in cells for i in inputs & set(cell) if len(inputs & set(cell)) > kept]
        if not free:
            break
        inputs -= {min(free, key=lambda i: error(inputs - {i}))}
    while True:
        swaps = [
            inputs - {out} | {into}
            for cell in cells
            for out in inputs & set(cell)
            for into in set(cell) - inputs
        ]
        best = min(swaps, key=error)
        if error(best) >= error(inputs) * (1 - 1e-12):
            return inputs
        inputs = best


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (2, 6)])
def test_the_choice_is_that_of_plain_greedy_removal_and_swaps(n, m, seed):
    """With inputs of very different sizes, so that what is removed first is not what is small."""
    rng = np.random.default_rng(seed)
    inputs = mixed_inputs(rng, 1, 12, 100, 2) * rng.lognormal(0, 1, (1, 12, 1))
    weight = rng.standard_normal((1, 3, 12))
    problem = regression(inputs, weight @ inputs + rng.standard_normal((1, 3, 100)))
    cells = Cells.of(NofM(n, m), 1)
    kept = chosen(problem, weight, cells)
    places = [[int(i) for i in cell] for cell in cells.places(12)]
    for row in range(3):
        found = set(np.flatnonzero(kept[0, row]).tolist())
        assert found == plain_choice(problem, weight, row, places, n)


def test_stored_zeros_stay_zero_and_threads_change_nothing():
    problem, weight = layer(3, (1, 6, 16))
    weight[0, :, ::3] = 0
    cells = Cells.of(NofM(2, 4), 1)
    kept = chosen(problem, weight, cells)
    assert not kept[weight == 0].any()
    stored = np.count_nonzero(cells.gathered(weight), axis=-1)
    assert np.array_equal(cells.gathered(kept).sum(axis=-1), np.minimum(stored, 2))
    assert np.array_equal(kept, chosen(problem, weight, cells, threads=3))


@pytest.mark.parametrize("blocks", [Blocks(2, 1), Blocks(1, 3), Blocks(4, 2)], ids=str)
def test_block_costs_are_those_of_a_plain_greedy_removal(blocks):
    problem, weight = layer(5, (2, 4, 12), correlation=2)
    cells = Cells.of(blocks, 2)
    rate = np.random.default_rng(0).uniform(0.5, 2, (2, 4))
    costs = block_costs(problem, weight, rate, cells, damping=DAMPING, threads=2)
    places = cells.places(12)
    for group in range(2):
        for band in range(4 // blocks.rows):
            rows = range(band * blocks.rows, (band + 1) * blocks.rows)

            def error(inputs, group=group, rows=rows):
                each = [best_error(problem, weight, group, row, inputs) for row in rows]
                return float(np.dot(rate[group, list(rows)], each))

            left, worst = set(range(len(places))), 0.0
            while left:
                inputs = {int(i) for cell in left for i in places[cell]}
                now = error(inputs)
                rises = {cell: error(inputs - set(places[cell])) - now for cell in left}
                cheapest = min(rises, key=rises.__getitem__)
                worst = max(worst, rises[cheapest])
                assert costs[group, band, cheapest] == pytest.approx(worst, rel=1e-4)
                left.remove(cheapest)


def test_blocks_of_stored_zeros_cost_nothing():
    problem, weight = layer(6, (1, 4, 12))
    weight[0, :2, 3] = 0
    cells = Cells.of(Blocks(2, 1), 1)
    costs = block_costs(problem, weight, np.ones((1, 4)), cells, damping=DAMPING, threads=1)
    assert costs[0, 0, 3] == 0
    assert np.count_nonzero(costs == 0) == 1
