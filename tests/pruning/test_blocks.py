"""Layers decided on block by block."""

from dataclasses import replace

import numpy as np
import pytest

from onnx_sipp.pruning.blocks import BlockwiseDecisions, Parted
from onnx_sipp.pruning.cells import Cells, alive_units, units
from onnx_sipp.pruning.deciding import decide
from onnx_sipp.pruning.importance import LayerStatistics
from onnx_sipp.pruning.methods import METHODS, Goal, allocations_of
from onnx_sipp.pruning.patterns import Blocks, NofM
from onnx_sipp.pruning.selection import ALLOCATIONS

SHAPES = [(1, 40, 30), (2, 12, 20), (1, 25, 50)]
PAIRS = [
    (method, allocation)
    for method in METHODS
    if method != "mixed"
    for allocation in allocations_of(method)
]


def statistics(seed, shape, patches=3):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape) * np.exp(rng.standard_normal(shape[:2]))[..., None]
    weight[rng.random(shape) < 0.1] = 0
    share = rng.random(shape).astype(np.float32) / shape[2] * (weight != 0)
    moment = rng.random((shape[0], 1, shape[2]))
    return LayerStatistics(weight, share, share / 2, moment, patches)


def rows(whole, part):
    """Statistics of some neurons."""
    return LayerStatistics(
        whole.weight[:, part], whole.sensitivity_max[:, part], whole.sensitivity_mean[:, part],
        whole.second_moment, whole.patches, whole.cells,
    )  # fmt: skip


def parted(whole, step=7):
    outs = whole.weight.shape[1]
    blocks = [
        (lambda a=a: rows(whole, slice(a, min(outs, a + step)))) for a in range(0, outs, step)
    ]
    neurons = whole.weight.shape[0] * outs
    capacity = alive_units(whole.cells, whole.weight)
    return Parted(blocks, units(whole.cells, whole.weight.size), neurons, capacity, whole.patches)


def joined(decisions, layers, field):
    axis = {"sampled": 2}.get(field, 1)
    return [
        np.concatenate([getattr(decisions(i, n), field) for n in range(len(layer.blocks))], axis)
        for i, layer in enumerate(layers)
    ]


@pytest.mark.parametrize(("method", "allocation"), PAIRS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_counts_are_exact(method, allocation, share):
    whole = [statistics(seed, shape) for seed, shape in enumerate(SHAPES)]
    layers = [parted(layer) for layer in whole]
    keep = round(share * sum(layer.capacity for layer in layers))
    found = BlockwiseDecisions(layers, Goal(keep=keep), method, allocation, [0])
    kept = joined(found, layers, "kept")
    assert sum(map(np.count_nonzero, kept)) == keep
    assert [sum(counts) for counts in found.counts] == [int(mask.sum()) for mask in kept]
    for mask, weight, layer in zip(kept, joined(found, layers, "weight"), whole, strict=True):
        assert np.all(layer.weight[mask] != 0)
        np.testing.assert_array_equal(weight != 0, mask)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sipp-det"])
@pytest.mark.parametrize("allocation", [*ALLOCATIONS, "sipp"])
def test_masks_are_those_of_the_whole(method, allocation):
    """But for rounding where counts are shared out."""
    whole = [statistics(seed, shape) for seed, shape in enumerate(SHAPES)]
    layers = [parted(layer) for layer in whole]
    goal = Goal(keep=1200)
    found = joined(BlockwiseDecisions(layers, goal, method, allocation, [0]), layers, "kept")
    made = decide(whole, goal, method, allocation, np.random.default_rng(0))
    differ = sum(np.sum(a != b.kept) for a, b in zip(found, made, strict=True))
    assert differ <= {"global": 0, "layer": 0, "lamp": 40}.get(allocation, 60)


@pytest.mark.parametrize("pattern", [NofM(2, 5), Blocks(2, 1), Blocks(4, 5)], ids=str)
@pytest.mark.parametrize("allocation", ["global", "layer"])
def test_patterns_are_those_of_the_whole(pattern, allocation):
    cells = Cells.of(pattern, 1)
    whole = [
        replace(statistics(seed, shape), cells=cells)
        for seed, shape in enumerate([(1, 40, 30), (2, 12, 20), (1, 24, 50)])
    ]
    layers = [parted(layer, 8) for layer in whole]
    goal = Goal(keep=sum(units(cells, layer.weight.size) for layer in whole) * 3 // 5)
    found = joined(BlockwiseDecisions(layers, goal, "wanda", allocation, [0]), layers, "kept")
    made = decide(whole, goal, "wanda", allocation, np.random.default_rng(0))
    for mask, decision in zip(found, made, strict=True):
        np.testing.assert_array_equal(mask, decision.kept)


@pytest.mark.parametrize("method", ["sipp-det", "sipp-rand", "sipp-hybrid"])
def test_a_bound_is_met_block_by_block(method):
    whole = [statistics(seed, shape) for seed, shape in enumerate(SHAPES)]
    layers = [parted(layer) for layer in whole]
    allocation = METHODS[method].allocation
    goal = Goal(epsilon=3.0, delta=1e-3)
    found = joined(BlockwiseDecisions(layers, goal, method, allocation, [0]), layers, "kept")
    made = decide(whole, goal, method, allocation, np.random.default_rng(0))
    for mine, theirs in zip(found, made, strict=True):
        if method == "sipp-det":
            np.testing.assert_array_equal(mine, theirs.kept)
        np.testing.assert_array_equal(mine.sum(axis=2), theirs.kept.sum(axis=2))


def test_sampled_halves_are_told():
    whole = [statistics(seed, shape) for seed, shape in enumerate(SHAPES)]
    layers = [parted(layer) for layer in whole]
    found = BlockwiseDecisions(layers, Goal(keep=900), "sipp-rand", "sipp", [0])
    for halves, shape in zip(joined(found, layers, "sampled"), SHAPES, strict=True):
        assert halves.shape == (2, *shape[:2])
        assert halves.any()


def test_the_same_seed_gives_the_same():
    layers = [parted(statistics(0, SHAPES[0]))]
    goal = Goal(keep=500)
    first, same, other = (
        joined(BlockwiseDecisions(layers, goal, "random", "layer", seed), layers, "kept")[0]
        for seed in ([1], [1], [2])
    )
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("allocation", ["global", "sipp"])
def test_what_was_not_seen_keeps_the_share_of_all(allocation):
    unseen = statistics(1, SHAPES[1], patches=0)
    layers = [parted(statistics(0, SHAPES[0])), parted(unseen)]
    goal = Goal(keep=600)
    found = BlockwiseDecisions(layers, goal, "sipp-det", allocation, [0])
    total = sum(layer.size for layer in layers)
    assert sum(found.counts[1]) == pytest.approx(600 * layers[1].size / total, abs=1)
    assert sum(map(sum, found.counts)) == 600
    kept = np.concatenate([found(1, n).kept for n in range(len(layers[1].blocks))], axis=1)
    magnitude = np.abs(unseen.weight)
    assert magnitude[kept].min() >= magnitude[~kept].max()
    bound = BlockwiseDecisions(layers, Goal(epsilon=1.0), "sipp-det", "global", [0])
    assert bound(1, 0).kept.sum() == np.count_nonzero(layers[1].blocks[0]().weight)
