"""Neuron halves: their budgets and bounds, and which of them are sampled."""

from dataclasses import replace

import numpy as np
import pytest
from layer_statistics import MASKING, SHAPES, run, some_layers, total

from onnx_sipp.pruning.certificate import certify, half_counts, half_sums, log_factor
from onnx_sipp.pruning.deciding import decide
from onnx_sipp.pruning.halves import neuron_halves, neuron_sizes
from onnx_sipp.pruning.methods import METHODS, Goal


def test_hybrid_keeps_the_budget_when_it_is_called_again():
    """The authors' allocator changed its own result in place, so a second call lost rows."""
    layers = some_layers()
    keep = total(layers) // 2
    rng = np.random.default_rng(0)
    for _ in range(3):
        decisions = decide(layers, Goal(keep=keep, delta=0.1), "sipp-hybrid", "sipp", rng)
        assert sum(int(decision.kept.sum()) for decision in decisions) == keep


@pytest.mark.parametrize("method", ["sipp-rand", "sipp-hybrid"])
def test_sampled_halves_have_the_allotted_number_of_weights_of_their_own_sign(method):
    layers = some_layers()
    decisions = run(layers, Goal(keep=total(layers) // 3, delta=0.1), method, "sipp")
    ranked = run(
        [replace(layer, sensitivity_mean=layer.sensitivity_max) for layer in layers],
        Goal(keep=total(layers) // 3, delta=0.1),
        "sipp-det",
        "sipp",
    )
    assert any(decision.sampled.any() for decision in decisions)
    for layer, mixed, plain in zip(layers, decisions, ranked, strict=True):
        np.testing.assert_array_equal(
            half_counts(mixed.kept, layer.weight), half_counts(plain.kept, layer.weight)
        )


def test_sampling_is_unbiased_in_a_layer():
    layers = some_layers(shapes=((1, 1, 24),))
    rng = np.random.default_rng(0)
    draws = [
        decide(layers, Goal(keep=10, delta=0.1), "sipp-rand", "sipp", rng)[0] for _ in range(4000)
    ]
    weights = np.stack([draw.weight for draw in draws])
    halves = np.stack([layers[0].weight > 0, layers[0].weight < 0])
    needed = (halves & draws[0].sampled[..., None]).any(axis=0) & (layers[0].sensitivity_max > 0)
    assert needed.sum() >= 15
    error = weights.std(axis=0) / np.sqrt(len(draws))
    off = np.abs(weights.mean(axis=0) - layers[0].weight)[needed]
    assert np.all(off <= 5 * error[needed] + 1e-12)


def test_hybrid_takes_the_smaller_bound():
    layers = some_layers()
    keep = total(layers) // 3

    def bounds(method, mean="sensitivity_mean"):
        used = [replace(layer, sensitivity_mean=layer.sensitivity_max) for layer in layers]
        decisions = run(used, Goal(keep=keep, delta=0.1), method, "sipp")
        return [
            certify(
                layer.weight, layer.sensitivity_max, d.weight, d.sampled,
                patches=layer.patches, samples=1, needed=1, delta=0.1,
            ).epsilon
            for layer, d in zip(layers, decisions, strict=True)
        ]  # fmt: skip

    for mixed, ranked, drawn in zip(
        bounds("sipp-hybrid"), bounds("sipp-det"), bounds("sipp-rand"), strict=True
    ):
        np.testing.assert_allclose(mixed, np.minimum(ranked, drawn), rtol=1e-6)


@pytest.mark.parametrize("method", MASKING)
@pytest.mark.parametrize("epsilon", [0.0, 1e-9, 0.1, 1.0, 7.0, 1e6])
@pytest.mark.parametrize("delta", [1e-16, 0.1])
def test_every_half_is_within_the_certificate_asked_for(method, epsilon, delta):
    layers = some_layers()
    goal = Goal(epsilon=epsilon, delta=delta)
    decisions = run(layers, goal, method, METHODS[method].allocation)
    for layer, decision in zip(layers, decisions, strict=True):
        found = certify(
            layer.weight, layer.sensitivity_max, decision.weight, decision.sampled,
            patches=layer.patches, samples=1, needed=1, delta=delta,
        )  # fmt: skip
        assert found.worst <= epsilon
        if epsilon == 0:  # dead weights are free
            np.testing.assert_array_equal(decision.kept, layer.sensitivity_max > 0)


def test_a_larger_epsilon_keeps_fewer_weights():
    layers = some_layers()
    for method in ("sipp-rand", "sipp-hybrid", "magnitude"):
        kept = [
            sum(int(d.kept.sum()) for d in run(layers, Goal(epsilon=e, delta=0.1), method, ""))
            for e in (0.01, 0.1, 1, 10)
        ]
        assert kept == sorted(kept, reverse=True)
        assert kept[0] > kept[-1]


def test_ranking_to_a_certificate_keeps_no_weight_too_many():
    """Dropping one more of the ranked weights would break the bound."""
    layers = some_layers()
    epsilon = 0.8
    scored = [replace(layer, sensitivity_mean=layer.sensitivity_max) for layer in layers]
    decisions = run(scored, Goal(epsilon=epsilon), "sipp-det", "global")
    for layer, decision in zip(layers, decisions, strict=True):
        for half in (layer.weight > 0, layer.weight < 0):
            mine = np.where(half, layer.sensitivity_max, 0).astype(np.float64)
            dropped = 3 * np.where(decision.kept, 0, mine).sum(axis=-1)
            least = np.where(decision.kept & half, mine, np.inf).min(axis=-1)
            assert np.all(dropped + 3 * least > epsilon)


def test_a_certificate_that_is_missed_by_a_hair_is_missed():
    """By less than what is left out for rounding: one more weight of the worst half stays."""
    (layer,) = layers = some_layers(shapes=SHAPES[:1])

    def ranked(epsilon):
        (decision,) = run(layers, Goal(epsilon=epsilon), "sipp-det", "global")
        found = certify(
            layer.weight, layer.sensitivity_max, decision.weight, None,
            patches=layer.patches, samples=1, needed=1,
        )  # fmt: skip
        return decision, found.worst

    before, worst = ranked(0.8)
    epsilon = worst * (1 - 5e-10)
    after, met = ranked(epsilon)
    assert met <= epsilon
    assert after.kept.sum() == before.kept.sum() + 1


def test_neuron_halves():
    layers = some_layers()
    halves = neuron_halves(layers, delta=0.1)
    sizes = neuron_sizes(layers)
    assert len(halves.capacity) == len(sizes) == 2 * (6 + 8 + 4)
    assert np.all(halves.capacity <= sizes)
    assert sizes.sum() == sum(np.count_nonzero(layer.weight) for layer in layers)
    assert halves.capacity.sum() == sum(np.count_nonzero(layer.sensitivity_max) for layer in layers)
    np.testing.assert_allclose(halves.priority, [1 / 6] * 12 + [1 / 8] * 16 + [1 / 4] * 8)
    sums = [half_sums(layer.sensitivity_max, layer.weight).ravel() for layer in layers]
    np.testing.assert_allclose(halves.difficulty, log_factor(2, 0.1) * np.concatenate(sums))


def test_a_layer_without_sensitivities():
    layers = some_layers()
    dead = replace(layers[0], sensitivity_max=np.zeros_like(layers[0].sensitivity_max))
    for method in ("sipp-rand", "sipp-hybrid"):
        decisions = run([dead, *layers[1:]], Goal(keep=60), method, "sipp")
        assert sum(int(decision.kept.sum()) for decision in decisions) == 60
        assert not decisions[0].kept.any()
        assert not decisions[0].sampled.any()
