"""Candidates: exact in their counts, compared on held-out samples."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import mixed_inputs, regression

from onnx_sipp.pruning import candidates, mixing
from onnx_sipp.pruning.candidates import CANDIDATES, Proposal, output_costs
from onnx_sipp.pruning.cells import Cells
from onnx_sipp.pruning.effort import FULL, LEAST, MODERATE
from onnx_sipp.pruning.evidence import Evidence, damping_for
from onnx_sipp.pruning.mixing import choose, probe, resettle, settle
from onnx_sipp.pruning.patterns import Blocks, NofM
from onnx_sipp.pruning.selection import apportion
from onnx_sipp.statistics import regression as regression_module
from onnx_sipp.statistics.gram import WIDE


def evidence(seed=0, shape=(2, 4, 8), count=200, zeros=0.0, targets=None, correlation=0.5):
    """A layer with its own dense outputs as targets, or those of other weights."""
    rng = np.random.default_rng(seed)
    groups, outs, fan_in = shape
    weight = rng.standard_normal(shape).astype(np.float32)
    weight[rng.random(shape) < zeros] = 0
    fit, check = (mixed_inputs(rng, groups, fan_in, count, correlation) for _ in range(2))
    for_fit, for_check = (weight, weight) if targets is None else targets
    return Evidence(
        weight=weight,
        sensitivity=rng.random(shape).astype(np.float32) * (weight != 0),
        fit=regression(fit, for_fit @ fit + 1, centred=True),
        check=regression(check, for_check @ check + 1),
        gain=np.ones((groups, outs)),
        samples=16,
    )


def settled(layer, keep, name):
    return choose(layer, keep, 0, names=[name], threads=1)


@pytest.mark.parametrize(
    ("name", "greedy"), [*((name, True) for name in CANDIDATES), ("removal-cost", False)]
)
@given(
    st.integers(0, 999),
    st.floats(0, 1.1),
    st.sampled_from([0.0, 0.4]),
    st.booleans(),
    st.sampled_from(["no gain", "one gain", "signs"]),
)
@settings(deadline=None, max_examples=15)
def test_counts_are_exact(name, greedy, seed, share, zeros, by_neuron, gains):
    layer = evidence(seed, zeros=zeros, count=30)
    layer.weight[0, 1] = 0
    layer.sensitivity[..., 2] = 0
    layer.fit.gram[:, 3] = layer.fit.gram[:, :, 3] = layer.fit.cross[:, :, 3] = 0
    gain = np.random.default_rng(seed).standard_normal((2, 4))
    gain[1, 2] = 0
    gain = {"no gain": np.zeros((2, 4)), "one gain": np.eye(2, 4), "signs": gain}[gains]
    layer = replace(layer, by_neuron=by_neuron, gain=gain)
    keep = round(share * layer.weight.size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "GREEDY_LIMIT", candidates.GREEDY_LIMIT if greedy else 0)
        proposal = CANDIDATES[name](layer, keep, seed, 1)
    kept = proposal.kept
    assert kept.shape == layer.weight.shape
    assert kept.sum() == min(keep, np.count_nonzero(layer.weight))
    assert np.all(layer.weight[kept] != 0), "a stored zero was kept"
    if by_neuron:
        alive = np.count_nonzero(layer.weight, axis=-1).ravel()
        expected = apportion(np.full(8, 8), alive, keep)
        np.testing.assert_array_equal(kept.sum(axis=-1).ravel(), expected)
    choice = settle(layer, proposal, name, threads=1)
    np.testing.assert_array_equal(choice.weight != 0, kept)
    assert np.isfinite(choice.error)


@pytest.mark.parametrize("gain", [0.0, 1.0])
def test_counts_of_wide_layers_are_exact(gain, monkeypatch):
    monkeypatch.setattr(candidates, "GREEDY_LIMIT", 0)
    layer = evidence(1, (1, 5, WIDE), zeros=0.3)
    layer = replace(layer, gain=np.full((1, 5), gain))
    for keep in (1, 77, 500):
        assert CANDIDATES["removal-cost"](layer, keep, 0, 1).kept.sum() == keep


def test_neurons_without_gain_come_last():
    layer = evidence(2)
    gain = np.ones((2, 4))
    gain[:, 3] = 0
    layer = replace(layer, gain=gain)
    live = 6 * 8
    for name in ("removal-cost", "magnitude", "activation", "surgeon"):
        kept = CANDIDATES[name](layer, live - 5, 0, 1).kept
        assert not kept[:, 3].any()
        assert CANDIDATES[name](layer, live + 5, 0, 1).kept[:, :3].all()
    choice = settled(layer, 20, "magnitude")
    other = replace(layer, weight=layer.weight.copy())
    other.weight[:, 3] *= 50
    # What they do is no error either.
    assert settled(other, 20, "magnitude").error == pytest.approx(choice.error)


def fixed(places):
    """A candidate that keeps the same inputs of every neuron."""

    def candidate(layer, keep, seed, threads):
        kept = np.zeros(layer.weight.shape, bool)
        kept[..., places] = True
        return Proposal(kept)

    return candidate


def test_the_candidate_with_the_lowest_held_out_error_wins(monkeypatch):
    """Calibration samples speak for the first half of the inputs, held-out ones for the second."""
    rng = np.random.default_rng(3)
    first, second = rng.standard_normal((2, 1, 4, 8))
    first[..., 4:], second[..., :4] = 0, 0
    monkeypatch.setitem(CANDIDATES, "first", fixed(slice(0, 4)))
    monkeypatch.setitem(CANDIDATES, "second", fixed(slice(4, 8)))
    for truth, winner in ((second, "second"), (first, "first")):
        layer = evidence(3, (1, 4, 8), targets=(first, truth))
        layer = replace(layer, weight=(first + second).astype(np.float32))
        for refits in (False, True):
            choice = choose(layer, 16, 0, names=["first", "second"], threads=1, refits=refits)
            assert choice.candidate == winner
    # Without held-out samples, calibration has to do.
    choice = choose(
        replace(layer, check=None), 16, 0, names=["second", "first"], threads=1, refits=True
    )
    assert choice.candidate == "first"


@pytest.mark.parametrize("seed", range(3))
def test_the_winner_is_about_as_good_as_the_best_alone(seed):
    layer = evidence(seed, (1, 8, 16), correlation=2)
    alone = {name: settled(layer, 40, name).error for name in CANDIDATES}
    choice = choose(layer, 40, 0, names=list(CANDIDATES), threads=1)
    assert choice.error == alone[choice.candidate]
    assert choice.error <= 1.2 * min(alone.values())
    assert max(alone.values()) > 1.5 * choice.error


def test_a_refit_that_does_not_help_is_not_used():
    """Calibration targets that have nothing to do with the layer."""
    rng = np.random.default_rng(40)
    elsewhere = rng.standard_normal((2, 4, 8))
    dense = evidence(4).weight
    layer = evidence(4, targets=(elsewhere, dense))
    kept = np.abs(layer.weight) > 0.2
    choice = settle(layer, Proposal(kept), "magnitude", threads=1)
    np.testing.assert_array_equal(choice.weight, np.where(kept, layer.weight, 0))
    np.testing.assert_array_equal(choice.bias, layer.fit.best_bias(choice.weight))
    assert choice.damping == 0
    assert choice.error == choice.error_before == layer.error(choice.weight)


def test_a_refit_that_helps_is_used():
    layer = evidence(5, correlation=2)
    kept = np.abs(layer.weight) > 0.8
    choice = settle(layer, Proposal(kept), "magnitude", threads=1)
    assert choice.error < 0.5 * choice.error_before
    assert choice.error == layer.error(choice.weight)
    assert choice.error_before == layer.error(np.where(kept, layer.weight, 0))
    assert choice.damping in {factor * damping_for(layer) for factor in (0.3, 1, 3)}
    np.testing.assert_array_equal(choice.bias, layer.fit.best_bias(choice.weight))
    plain = settle(layer, Proposal(kept), "magnitude", threads=1, refits=False)
    np.testing.assert_array_equal(plain.weight, np.where(kept, layer.weight, 0))
    assert not plain.bias.any()
    tried = probe(layer, 20, threads=1)
    assert tried.kept.sum() == 20
    assert layer.error(tried.weight) < layer.error(np.where(tried.kept, layer.weight, 0))


def test_errors_are_those_of_the_outputs():
    """On samples, with gain and with the bias from calibration."""
    layer = evidence(6)
    rng = np.random.default_rng(7)
    held_out = mixed_inputs(rng, 2, 8, 90)
    targets = layer.weight @ held_out + 1
    gain = rng.standard_normal((2, 4))
    layer = replace(layer, gain=gain, check=regression(held_out, targets))
    weight = layer.weight * (rng.random(layer.weight.shape) < 0.5)
    bias = layer.fit.best_bias(weight)
    left = (targets - weight @ held_out - bias[..., None]) * gain[..., None]
    spread = (targets * gain[..., None]).var(axis=2).sum()
    assert layer.error(weight) == pytest.approx((left**2).mean(axis=2).sum() / spread)
    assert layer.power == pytest.approx(float(np.sum(gain**2 * layer.fit.power)))
    # By neuron, every output counts relative to its own power.
    even = replace(layer, by_neuron=True)
    assert even.power == pytest.approx(gain.size)
    loud = replace(even, gain=gain * 10)
    assert loud.error(weight) == pytest.approx(even.error(weight))


def test_more_damping_where_samples_are_few():
    layer = evidence(8, count=5000)
    assert damping_for(replace(layer, samples=1)) > damping_for(replace(layer, samples=64))
    assert damping_for(layer) > 0.03


def test_some_neurons_stand_for_all(monkeypatch):
    layer = evidence(9, (2, 12, 8), zeros=0.2)
    assert layer.some_neurons() is layer
    monkeypatch.setattr(Evidence, "effort", replace(FULL, neurons=4))
    some = layer.some_neurons()
    np.testing.assert_array_equal(some.neurons, [0, 4, 7, 11])
    np.testing.assert_array_equal(some.weight, layer.weight[:, some.neurons])
    weight = layer.weight * 0.9
    np.testing.assert_allclose(
        some.fit.errors(weight[:, some.neurons]), layer.fit.errors(weight)[:, some.neurons]
    )
    assert some.gain.shape == (2, 4)
    assert some.check.power.shape == (2, 4)
    for greedy in (True, False):
        monkeypatch.setattr(candidates, "GREEDY_LIMIT", 1e12 if greedy else 0)
        costs = output_costs(layer, [False], 1)[False]
        assert costs.shape == (layer if greedy else some).weight.shape
        assert np.all(costs >= 0)
        choice = choose(layer, 50, 0, names=list(CANDIDATES), threads=1)
        assert np.count_nonzero(choice.weight) == choice.kept.sum() == 50


@pytest.mark.parametrize("greedy", [True, False])
def test_removal_costs_count_as_they_show_at_the_output(greedy, monkeypatch):
    monkeypatch.setattr(candidates, "GREEDY_LIMIT", 1e12 if greedy else 0)
    layer = evidence(10, zeros=0.3)
    costs = output_costs(replace(layer, gain=np.ones((2, 4))), [False], 1)[False]
    assert np.all(costs[layer.weight == 0] == 0)
    gain = np.arange(8.0).reshape(2, 4)
    loud = replace(layer, gain=gain)
    found = output_costs(loud, [False, True], 1)
    np.testing.assert_allclose(found[False], costs * gain[..., None] ** 2, rtol=1e-5)
    rate = replace(loud, by_neuron=True).rate
    np.testing.assert_allclose(found[True], costs * rate[..., None], rtol=1e-5)


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("blocks", [Blocks(2, 1), Blocks(1, 4), Blocks(2, 2)], ids=str)
def test_costs_of_blocks_and_what_they_choose(greedy, blocks, monkeypatch):
    monkeypatch.setattr(candidates, "GREEDY_LIMIT", 1e12 if greedy else 0)
    cells = Cells.of(blocks, 1)
    layer = replace(evidence(10), cells=cells)
    costs = output_costs(layer, [False], 1)[False]
    assert costs.shape == cells.summed(layer.weight).shape
    assert costs.min() >= 0
    choice = choose(layer, 5, 0, names=list(CANDIDATES), threads=1)
    assert np.count_nonzero(choice.weight) == 5 * cells.unit
    assert cells.gathered(choice.kept).all(axis=-1).sum() == 5
    assert choice.candidate != "sipp-rand"


@pytest.mark.parametrize("greedy", [True, False])
def test_n_of_m_is_followed_by_every_candidate(greedy, monkeypatch):
    monkeypatch.setattr(candidates, "GREEDY_LIMIT", 1e12 if greedy else 0)
    cells = Cells.of(NofM(2, 4), 1)
    layer = replace(evidence(11), cells=cells)
    for name in CANDIDATES:
        if name != "sipp-rand":
            choice = choose(layer, layer.units // 2, 0, names=[name], threads=1)
            assert np.all(cells.gathered(choice.weight != 0).sum(axis=-1) == 2)


@pytest.mark.parametrize("level", [FULL, MODERATE, LEAST])
def test_a_gradual_choice_comes_near_the_exact_greedy_one(level, monkeypatch):
    layer = evidence(12, (1, 12, 40), 4000, correlation=0.7)
    exact = settled(layer, 100, "removal-cost")
    magnitude = settled(layer, 100, "activation")
    monkeypatch.setattr(candidates, "GREEDY_LIMIT", 0)
    monkeypatch.setattr(Evidence, "effort", level)
    gradual = settled(layer, 100, "removal-cost")
    assert gradual.error < exact.error + 0.6 * (magnitude.error - exact.error)


def test_threads_change_nothing():
    layer = evidence(11)
    one, two = (choose(layer, 25, 3, names=list(CANDIDATES), threads=n) for n in (1, 2))
    assert one.candidate == two.candidate
    np.testing.assert_array_equal(one.weight, two.weight)


# --- a bias that is not there yet ---------------------------------------------------------------


def shifted(mean, *, new=True):
    """A layer whose inputs have a mean, which the kept weights alone cannot make up for."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((1, 4, 8)).astype(np.float32)
    fit, check = (mean + mixed_inputs(rng, 1, 8, 400, 0.0) for _ in range(2))
    return Evidence(
        weight=weight,
        sensitivity=np.ones(weight.shape, np.float32),
        fit=regression(fit, weight @ fit, centred=True),
        check=regression(check, weight @ check),
        gain=np.ones((1, 4)),
        samples=400,
        bias_is_new=new,
    )


def test_a_new_bias_is_used_where_it_helps():
    layer = shifted(3.0)
    choice = settled(layer, 12, "activation")
    assert choice.bias.any()
    without = settled(layer.without_bias(), 12, "activation")
    assert not without.bias.any()
    assert choice.error < 0.95 * without.error
    assert settled(replace(layer, bias_is_new=False), 12, "activation").error == choice.error


def test_a_new_bias_that_hardly_helps_is_not_used():
    layer = shifted(0.01)
    choice = settled(layer, 12, "activation")
    assert not choice.bias.any()
    assert choice.error == settled(layer.without_bias(), 12, "activation").error
    assert settled(shifted(0.01, new=False), 12, "activation").bias.any()


def test_trials_of_single_layers_do_without_a_new_bias():
    assert not probe(shifted(3.0), 12, threads=1).bias.any()
    assert probe(shifted(3.0, new=False), 12, threads=1).bias.any()


def test_no_new_bias_without_a_refit():
    layer = shifted(3.0)
    choice = choose(layer, 12, 0, names=["activation"], threads=1, refits=False)
    assert not choice.bias.any()


@pytest.mark.parametrize("seed", range(4))
def test_without_refits_masks_are_compared_as_they_are(seed):
    layer = evidence(seed, (1, 6, 12), correlation=2)
    names = ["magnitude", "activation", "surgeon", "sipp-det"]
    plain = {}
    for name in names:
        kept = CANDIDATES[name](layer, 20, 0, 1).kept
        # A bias takes the mean: what is left is the variance of the dropped part.
        lost = np.where(kept, 0, layer.weight)[0]
        h, mean = layer.check.gram[0], layer.check.mean_input[0] - layer.fit.mean_input[0]
        centred = h - np.outer(layer.check.mean_input[0], layer.check.mean_input[0])
        errors = np.einsum("of,fg,og->o", lost, centred, lost) + (lost @ mean) ** 2
        plain[name] = errors.sum() / layer.check.spread().sum()
    choice = choose(layer, 20, 0, names=names, threads=1, refits=False)
    assert choice.error == pytest.approx(min(plain.values()))
    assert plain[choice.candidate] == pytest.approx(choice.error)
    assert choice.error_before == choice.error


@pytest.mark.parametrize("wide", [False, True])
def test_nothing_that_inverts_a_very_wide_gram_is_tried(wide, monkeypatch):
    if wide:
        monkeypatch.setattr(regression_module, "VERY_WIDE", 7)
    tried = []
    for name in ("surgeon", "activation"):
        plain = CANDIDATES[name]
        monkeypatch.setitem(
            CANDIDATES,
            name,
            lambda *given, name=name, plain=plain: tried.append(name) or plain(*given),
        )
    choose(evidence(5), 30, 0, names=["surgeon", "activation", "magnitude"], threads=1)
    assert ("surgeon" in tried) != wide
    assert "activation" in tried


def test_a_kept_weight_that_a_refit_makes_zero_stays_as_it_was(monkeypatch):
    """Or there would be a zero too many."""
    layer = evidence(6, (1, 4, 8), correlation=2)
    layer.weight[0, 0, 0] = 1e-3  # with or without it, a refit helps
    kept = np.ones(layer.weight.shape, bool)
    kept[..., 2:5] = False

    def refit(*given, **options):
        found = real(*given, **options)
        found.weight[0, 0, 0] = 0
        return found

    real = mixing.refit
    usual = settle(layer, Proposal(kept), "magnitude", threads=1)
    monkeypatch.setattr(mixing, "refit", refit)
    found = settle(layer, Proposal(kept), "magnitude", threads=1, damping=usual.damping)
    again = resettle(layer, found, threads=1)
    for choice in (found, again):
        assert np.array_equal(choice.weight != 0, kept)
        assert choice.weight[0, 0, 0] == layer.weight[0, 0, 0]
        np.testing.assert_array_equal(choice.bias, layer.fit.best_bias(choice.weight))
    assert found.damping > 0
    np.testing.assert_array_equal(found.weight.ravel()[1:], usual.weight.ravel()[1:])


def test_the_sign_of_a_gain_does_not_matter(monkeypatch):
    """In large layers too, which go step by step."""
    monkeypatch.setattr(candidates, "GREEDY_LIMIT", 0)
    layer = evidence(7)
    sizes = np.random.default_rng(7).uniform(0.2, 5, (2, 4))
    signs = np.where(np.arange(8).reshape(2, 4) % 3 == 0, -1, 1)
    for name in ("removal-cost", "magnitude", "activation", "surgeon"):
        kept = CANDIDATES[name](replace(layer, gain=sizes * signs), 30, 0, 1).kept
        plain = CANDIDATES[name](replace(layer, gain=sizes), 30, 0, 1).kept
        np.testing.assert_array_equal(kept, plain)
