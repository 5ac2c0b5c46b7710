"""Layers that no sample reached."""

import numpy as np
import pytest

from onnx_sipp.pruning.deciding import decide
from onnx_sipp.pruning.evidence import Evidence, damping_for
from onnx_sipp.pruning.importance import LayerStatistics
from onnx_sipp.pruning.methods import Goal
from onnx_sipp.pruning.mixing import choose
from onnx_sipp.pruning.unseen import decide_all, share_out
from onnx_sipp.statistics.regression import Regression


def layer(rng, shape=(1, 6, 10), patches=3):
    weight = rng.standard_normal(shape)
    seen = rng.random(shape).astype(np.float32) if patches else np.zeros(shape, np.float32)
    moment = rng.random((shape[0], 1, shape[2])) * (patches > 0)
    return LayerStatistics(weight, seen, seen, moment, patches)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("method", ["wanda", "sipp-det", "sipp-rand", "sipp-hybrid"])
def test_what_was_not_seen_keeps_the_share_of_all(rng, method):
    layers = [layer(rng), layer(rng, (1, 4, 5), patches=0), layer(rng)]
    allocation = "sipp" if method.startswith("sipp-") and method != "sipp-det" else "global"
    made = decide_all(layers, Goal(keep=56), method, allocation, np.random.default_rng(1))
    assert [int(decision.kept.sum()) for decision in made][1] == 8
    assert sum(int(decision.kept.sum()) for decision in made) == 56
    magnitude = np.abs(layers[1].weight)
    assert magnitude[made[1].kept].min() > magnitude[~made[1].kept].max()
    assert (made[1].weight == np.where(made[1].kept, layers[1].weight, 0)).all()
    alone = decide(
        [layers[0], layers[2]], Goal(keep=48), method, allocation, np.random.default_rng(1)
    )
    for mine, theirs in zip([made[0], made[2]], alone, strict=True):
        assert (mine.kept == theirs.kept).all()


def test_methods_that_see_nothing_treat_all_alike(rng):
    layers = [layer(rng), layer(rng, patches=0)]
    goal, other = Goal(keep=40), np.random.default_rng(1)
    made = decide_all(layers, goal, "magnitude", "global", np.random.default_rng(1))
    for mine, theirs in zip(made, decide(layers, goal, "magnitude", "global", other), strict=True):
        assert (mine.kept == theirs.kept).all()
    counts = [
        int(decision.kept.sum())
        for decision in decide_all(layers, goal, "magnitude", "sipp", other)
    ]
    assert counts == [20, 20]


def test_no_bound_no_zeros(rng):
    layers = [layer(rng), layer(rng, patches=0)]
    made = decide_all(layers, Goal(epsilon=5.0), "sipp-det", "global", rng)
    assert made[1].kept.all()
    assert not made[0].kept.all()


def test_nothing_was_seen_at_all(rng):
    layers = [layer(rng, patches=0), layer(rng, patches=0)]
    made = decide_all(layers, Goal(keep=60), "wanda", "neuron", rng)
    assert [int(decision.kept.sum()) for decision in made] == [30, 30]


def test_zeros_that_were_there_take_no_place(rng):
    counts, rest = share_out([100, 100, 50], [100, 20, 50], [True, False, False], 150)
    assert counts[1] == 20
    assert counts.sum() == 150
    assert rest == counts[0]
    assert abs(counts[0] - 2 * counts[2]) <= 2


def test_evidence_of_nothing_is_that_of_equal_inputs(rng):
    weight = rng.standard_normal((2, 3, 5))
    evidence = Evidence.unseen(weight, np.zeros_like(weight))
    assert not evidence.is_seen
    kept = np.abs(weight) > 0.5
    errors = evidence.fit.errors(np.where(kept, weight, 0))
    np.testing.assert_allclose(errors, np.sum(np.where(kept, 0, weight) ** 2, -1), atol=1e-12)
    assert evidence.power == pytest.approx(np.sum(weight**2))
    assert damping_for(evidence) < 0.1
    choice = choose(evidence, 12, 0, names=("magnitude",), threads=1)
    largest = np.sort(np.abs(weight), axis=None)[-12:]
    np.testing.assert_array_equal(np.sort(np.abs(weight[choice.kept])), largest)
    assert (choice.weight[choice.kept] == weight[choice.kept]).all()
    assert not choice.bias.any()


def test_a_blind_regression(rng):
    weight = rng.standard_normal((1, 3, 4))
    fit = Regression.blind(weight)
    assert fit.count == 0
    np.testing.assert_array_equal(fit.gram, np.eye(4)[None])
    np.testing.assert_array_equal(fit.cross, weight)
