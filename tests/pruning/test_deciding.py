"""From statistics of all layers to the weights that stay."""

from dataclasses import replace

import numpy as np
import pytest
from layer_statistics import MASKING, run, some_layers, total

from onnx_sipp.pruning.cells import Cells
from onnx_sipp.pruning.deciding import layer_counts
from onnx_sipp.pruning.methods import METHODS, Goal, allocations_of
from onnx_sipp.pruning.patterns import Blocks, NofM
from onnx_sipp.pruning.selection import ALLOCATIONS

EVERY = [(method, allocation) for method in MASKING for allocation in allocations_of(method)]


def test_a_zero_inside_a_cell_that_stays_is_not_kept():
    (layer,) = some_layers(shapes=((1, 4, 8),))
    layer = replace(layer, cells=Cells.of(Blocks(1, 2), 1))
    layer.weight[..., 5] = 0
    (decision,) = run([layer], Goal(keep=16), "magnitude", "layer")
    assert not decision.kept[..., 5].any()
    assert decision.kept[..., 4].all()


@pytest.mark.parametrize(("method", "allocation"), EVERY)
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7, 0.9, 0.999])
def test_counts_are_exact(method, allocation, sparsity):
    layers = some_layers()
    keep = total(layers) - round(sparsity * total(layers))
    decisions = run(layers, Goal(keep=keep, delta=0.1), method, allocation)
    assert sum(int(decision.kept.sum()) for decision in decisions) == keep
    for layer, decision in zip(layers, decisions, strict=True):
        np.testing.assert_array_equal(decision.kept, decision.weight != 0)
        assert np.all(decision.weight * layer.weight >= 0), "a sign changed"


@pytest.mark.parametrize(("method", "allocation"), EVERY)
@pytest.mark.parametrize("keep", ["all", "dead too", 0, 5])
def test_budgets_at_the_ends(method, allocation, keep):
    """Everything; more than have sensitivities; nothing; fewer weights than neurons."""
    layers = some_layers()
    nonzero = sum(np.count_nonzero(layer.weight) for layer in layers)
    wanted = {"all": total(layers), "dead too": nonzero - 10}.get(keep, keep)
    decisions = run(layers, Goal(keep=wanted, delta=0.1), method, allocation)
    assert sum(int(decision.kept.sum()) for decision in decisions) == min(wanted, nonzero)


@pytest.mark.parametrize(("method", "allocation"), EVERY)
def test_weights_are_left_as_they_are_unless_sampled(method, allocation):
    layers = some_layers()
    decisions = run(layers, Goal(keep=total(layers) // 2, delta=0.1), method, allocation)
    sampled = 0
    for layer, decision in zip(layers, decisions, strict=True):
        halves = np.stack([layer.weight > 0, layer.weight < 0])
        ranked = (halves & ~decision.sampled[..., None]).any(axis=0) & decision.kept
        np.testing.assert_array_equal(decision.weight[ranked], layer.weight[ranked])
        sampled += int(decision.sampled.sum())
    assert (sampled > 0) == (METHODS[method].mixing != "never")


@pytest.mark.parametrize(("method", "allocation"), EVERY)
def test_a_second_call_gives_the_same(method, allocation):
    layers = some_layers()
    goal = Goal(keep=total(layers) // 2, delta=0.1)
    first, second = (run(layers, goal, method, allocation) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)
        np.testing.assert_array_equal(one.sampled, other.sampled)
    for layer, before in zip(layers, some_layers(), strict=True):
        np.testing.assert_array_equal(layer.weight, before.weight)
        np.testing.assert_array_equal(layer.sensitivity_max, before.sensitivity_max)


@pytest.mark.parametrize("method", ["sipp-rand", "sipp-hybrid", "random"])
def test_the_seed_counts(method):
    layers = some_layers()
    goal, allocation = Goal(keep=total(layers) // 2, delta=0.1), METHODS[method].allocation
    first, other = (run(layers, goal, method, allocation, seed) for seed in (0, 1))
    assert any(np.any(a.kept != b.kept) for a, b in zip(first, other, strict=True))


def cells_of(cells, values):
    return cells.gathered(values).reshape(-1, cells.rows * cells.columns)


@pytest.mark.parametrize("allocation", sorted(ALLOCATIONS))
def test_blocks_with_the_largest_sums_stay(allocation):
    """Of one layer: with zeros in the blocks, and with blocks of zeros."""
    cells = Cells.of(Blocks(2, 2), 1)
    (layer,) = some_layers(3, shapes=((1, 6, 20),))
    layer.weight[0, 2:4, 6:10] = 0
    layer = replace(layer, cells=cells)
    (decision,) = run([layer], Goal(keep=12), "magnitude", allocation)
    chosen = cells_of(cells, decision.kept).any(axis=-1)
    there = cells_of(cells, layer.weight != 0)
    assert chosen.sum() == 12
    np.testing.assert_array_equal(cells_of(cells, decision.kept), there & chosen[:, None])
    np.testing.assert_array_equal(decision.weight, np.where(decision.kept, layer.weight, 0))
    sums = cells_of(cells, np.abs(layer.weight)).sum(axis=-1)
    if allocation == "neuron":
        assert np.ptp(chosen.reshape(3, 10).sum(axis=-1)) <= 1
    else:
        assert sums[chosen].min() >= sums[~chosen].max()
    assert layer_counts([layer], Goal(keep=12), allocation) == [12]


def test_n_of_m_keeps_its_share_of_every_layer():
    layers = [
        replace(layer, cells=Cells.of(NofM(2, 4), 1))
        for layer in some_layers(4, shapes=((1, 6, 20), (2, 4, 12)))
    ]
    for keep, kept in ((0.5, 2), (0.75, 3), (0.1, 2)):
        decisions = run(layers, Goal(keep=round(keep * total(layers))), "magnitude", "global")
        for layer, decision in zip(layers, decisions, strict=True):
            sizes = cells_of(layer.cells, np.abs(layer.weight))
            chosen = cells_of(layer.cells, decision.kept)
            stored = np.count_nonzero(sizes, axis=-1)
            np.testing.assert_array_equal(chosen.sum(axis=-1), np.minimum(stored, kept))
            least = np.where(chosen, sizes, np.inf).min(axis=-1)
            assert np.all(least >= np.where(chosen, 0, sizes).max(axis=-1))
