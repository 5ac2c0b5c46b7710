import numpy as np
import pytest

from onnx_sipp.pruning.cells import Cells, alive_units, per_unit, units
from onnx_sipp.pruning.patterns import Blocks, NofM

RNG = np.random.default_rng(0)
# Two groups of four neurons, which read eight channels at three places.
SHAPE, POSITIONS = (2, 4, 24), 3
EVERY = [
    Cells.of(pattern, POSITIONS)
    for pattern in (NofM(2, 4), NofM(1, 8), Blocks(4, 1), Blocks(1, 4), Blocks(2, 2))
]
every_pattern = pytest.mark.parametrize("cells", EVERY, ids=str)


def naive_cells(cells):
    """Places of each cell of a matrix, as lists of (group, neuron, channel, position)."""
    groups, outs, fan_in = SHAPE
    channels = fan_in // POSITIONS
    return [
        [(g, o + i, c + j, p) for i in range(cells.rows) for j in range(cells.columns)]
        for g in range(groups)
        for o in range(0, outs, cells.rows)
        for p in range(POSITIONS)
        for c in range(0, channels, cells.columns)
    ]


def counts_in_cells(cells, kept):
    seen = kept.reshape(2, 4, -1, POSITIONS)
    return [sum(bool(seen[place]) for place in cell) for cell in naive_cells(cells)]


@every_pattern
def test_cells_are_neighbours_at_one_position(cells):
    values = RNG.standard_normal(SHAPE)
    seen = values.reshape(2, 4, -1, POSITIONS)
    expected = [[seen[place] for place in cell] for cell in naive_cells(cells)]
    found = cells.gathered(values)
    assert np.array_equal(found.reshape(len(expected), -1), expected)
    assert np.array_equal(cells.spread(found), values)
    assert np.allclose(cells.summed(values).ravel(), np.sum(expected, axis=1))


@every_pattern
def test_places_are_the_inputs_of_the_cells(cells):
    inputs = np.broadcast_to(np.arange(SHAPE[2]), SHAPE)
    first_band = cells.gathered(inputs)[0, 0].reshape(-1, cells.rows, cells.columns)
    assert np.array_equal(cells.places(SHAPE[2]), first_band[:, 0])


@pytest.mark.parametrize("cells", EVERY[:2], ids=str)
def test_n_of_m_keeps_the_best_of_every_cell(cells):
    score = RNG.uniform(1, 2, SHAPE)
    keep = score.size * cells.kept // cells.columns
    kept = cells.best(score, score, keep)
    assert set(counts_in_cells(cells, kept)) == {cells.kept}
    parts, chosen = cells.gathered(score), cells.gathered(kept)
    worst_kept = np.where(chosen, parts, np.inf).min(axis=-1)
    assert np.all(worst_kept >= np.where(chosen, -np.inf, parts).max(axis=-1))


def test_n_of_m_never_keeps_zeros_nor_goes_below_n():
    cells = Cells.of(NofM(2, 4), POSITIONS)
    weight = RNG.standard_normal(SHAPE) * (RNG.random(SHAPE) < 0.3)
    kept = cells.best(np.ones(SHAPE), np.abs(weight), 0)
    assert not kept[weight == 0].any()
    stored = np.count_nonzero(cells.gathered(weight), axis=-1)
    assert np.array_equal(cells.gathered(kept).sum(axis=-1), np.minimum(stored, 2))


@pytest.mark.parametrize("by_band", [False, True])
@pytest.mark.parametrize("cells", EVERY[2:], ids=str)
def test_blocks_stay_or_go_as_a_whole_and_are_met_exactly(cells, by_band):
    score = RNG.uniform(1, 2, SHAPE)
    keep = units(cells, score.size) // 2
    kept = cells.best(score, score, keep, by_band=by_band)
    counts = counts_in_cells(cells, kept)
    size = cells.rows * cells.columns
    assert set(counts) == {0, size}
    assert counts.count(size) == keep == alive_units(cells, kept)
    sums, chosen = cells.summed(score), cells.gathered(kept).all(axis=-1)
    if by_band:
        assert np.ptp(chosen.sum(axis=-1)) <= 1
    else:
        assert sums[chosen].min() >= sums[~chosen].max()


def test_scores_may_be_of_whole_cells():
    cells = EVERY[2]
    score, magnitude = RNG.uniform(1, 2, SHAPE), np.ones(SHAPE)
    by_weight = cells.best(score, magnitude, 10)
    assert np.array_equal(by_weight, cells.best(cells.summed(score), magnitude, 10))


def test_units_are_weights_or_cells():
    weight = np.ones(SHAPE)
    weight[0, :, 0] = 0  # one block of 4x1
    assert units(None, weight.size) == units(EVERY[0], weight.size) == weight.size
    assert units(EVERY[2], weight.size) == weight.size // 4
    assert alive_units(None, weight) == alive_units(EVERY[0], weight) == weight.size - 4
    assert alive_units(EVERY[2], weight) == weight.size // 4 - 1
    assert per_unit(EVERY[0], weight, -weight)[1].sum() == weight.sum()
    scores, magnitudes = per_unit(EVERY[2], 3 * weight, -weight)
    assert np.array_equal(magnitudes, EVERY[2].summed(weight))
    assert np.array_equal(scores, 3 * magnitudes)


@pytest.mark.parametrize("cells", EVERY[2:], ids=str)
def test_a_block_can_be_replaced_if_it_is_idle_as_a_whole(cells):
    idle = RNG.random(SHAPE) < 0.5
    idle[0] = True
    seen = idle.reshape(2, 4, -1, POSITIONS)
    expected = np.zeros_like(seen)
    for cell in naive_cells(cells):
        for place in cell:
            expected[place] = all(seen[other] for other in cell)
    assert np.array_equal(cells.replaceable(idle, np.ones(SHAPE)), expected.reshape(SHAPE))


def test_an_idle_weight_of_n_of_m_can_be_replaced_if_n_others_work():
    """Where fewer work, the pattern would have to keep the idle ones anyway."""
    cells = Cells.of(NofM(2, 4), 1)
    weight = np.array([[[5, 0, -6, 0, 7, 8, 9, 0, 1, 2, 3, -4, 5, 0, 0, 6]]])
    idle = np.array([[[0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 0, 0, 0]]], bool)
    # The first cell has one other than the idle one; the second two; so has the third. Of the
    # three in the fourth two are zeros, which do no work.
    expected = np.array([[[0, 0, 0, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]]], bool)
    assert np.array_equal(cells.replaceable(idle, weight), expected)
