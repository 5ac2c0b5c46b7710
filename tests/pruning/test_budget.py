"""The allocator against a general convex solver, and against trying everything."""

import itertools

import cvxpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_sipp.pruning.budget import Halves, allocate_halves, objective


def some_halves(seed, size, largest=200, spread=1.5):
    rng = np.random.default_rng(seed)
    return Halves(
        difficulty=rng.lognormal(4, spread, size),
        priority=1 / rng.choice([4.0, 16.0, 100.0], size),
        capacity=rng.integers(1, largest + 1, size),
    )


def relaxed_optimum(halves, budget):
    """The optimum over real numbers, by a general solver.

    With ε as the variable the problem is convex in its textbook form: m = c (1/ε + 3/(2ε²)),
    the inverse of ε(m), is convex, and m ≤ capacity says ε ≥ ε(capacity).
    """
    c = 2 * halves.difficulty / 3
    t = c / halves.capacity
    least = (t + np.sqrt(t * t + 6 * t)) / 2
    epsilon = cvxpy.Variable(len(c))
    counts = cvxpy.multiply(c, cvxpy.inv_pos(epsilon) + 1.5 * cvxpy.power(epsilon, -2))
    scale = 1 / halves.priority.mean()
    problem = cvxpy.Problem(
        cvxpy.Minimize(scale * (halves.priority @ epsilon)),
        [epsilon >= least, cvxpy.sum(counts) / budget <= 1],
    )
    problem.solve(solver=cvxpy.CLARABEL)
    assert problem.status == cvxpy.OPTIMAL
    value = epsilon.value
    return problem.value / scale, c * (1 / value + 1.5 / value**2)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_as_good_as_a_convex_solver(seed, share):
    halves = some_halves(seed, 24)
    budget = max(len(halves.capacity), round(share * halves.capacity.sum()))
    bound, relaxed = relaxed_optimum(halves, budget)
    counts = allocate_halves(halves, budget)
    assert counts.sum() == budget
    assert np.all((counts >= 0) & (counts <= halves.capacity))
    found = objective(halves, counts)
    # No integers are better than the best real numbers, and ours are no worse than those rounded.
    assert found >= bound * (1 - 1e-6)
    assert found <= objective(halves, np.floor(relaxed + 1e-6).astype(np.int64)) + 1e-9
    assert np.all(np.abs(counts - relaxed) <= 2)


@given(st.integers(0, 10_000), st.integers(1, 4), st.floats(-8, 8), st.floats(0, 4))
@settings(deadline=None, max_examples=60)
def test_no_other_integers_are_better(seed, size, level, spread):
    rng = np.random.default_rng(seed)
    halves = Halves(
        rng.lognormal(level, spread, size),
        rng.lognormal(0, 1, size),
        rng.integers(1, 7, size),
    )
    ranges = [range(1, capacity + 1) for capacity in halves.capacity]
    every = [(sum(m), np.array(m)) for m in itertools.product(*ranges)]
    for budget in range(size, int(halves.capacity.sum()) + 1):
        best = min(objective(halves, m) for total, m in every if total == budget)
        found = allocate_halves(halves, budget)
        assert found.sum() == budget
        assert objective(halves, found) <= best * (1 + 1e-12)


@given(st.integers(0, 1000), st.integers(-5, 3000))
@settings(deadline=None)
def test_sums_and_capacities_are_exact(seed, budget):
    halves = some_halves(seed, 15, largest=120, spread=3)
    alive = np.random.default_rng(seed).random(15) < 0.7
    halves = Halves(halves.difficulty * alive, halves.priority, halves.capacity)
    counts = allocate_halves(halves, budget)
    assert counts.dtype == np.int64
    assert counts.sum() == np.clip(budget, 0, halves.capacity.sum())
    assert np.all((counts >= 0) & (counts <= halves.capacity))
    room = halves.capacity[alive].sum() - counts[alive].sum()
    assert counts[~alive].sum() == 0 or room == 0, "halves without sensitivities come last"


def test_equal_halves_get_equal_shares():
    size = 10
    halves = Halves(np.full(size, 3.0), np.full(size, 0.1), np.full(size, 50))
    np.testing.assert_array_equal(allocate_halves(halves, 200), 20)
    assert sorted(allocate_halves(halves, 203)) == [20] * 7 + [21] * 3


def test_more_budget_never_takes_weights_away():
    halves = some_halves(5, 12)
    before = allocate_halves(halves, 12)
    for budget in range(13, 600):
        after = allocate_halves(halves, budget)
        assert np.all(after >= before)
        before = after


def test_fewer_weights_than_halves_go_where_they_are_needed_most():
    halves = Halves(np.array([1.0, 9.0, 4.0, 0.0]), np.ones(4), np.full(4, 5))
    np.testing.assert_array_equal(allocate_halves(halves, 2), [0, 1, 1, 0])
    assert objective(halves, allocate_halves(halves, 2)) == np.inf
    assert objective(halves, allocate_halves(halves, 3)) < np.inf


def test_no_halves_at_all():
    nothing = Halves(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    assert allocate_halves(nothing, 5).shape == (0,)


def test_objective_of_halves_without_sensitivities():
    halves = Halves(np.zeros(2), np.ones(2), np.full(2, 3))
    assert objective(halves, np.array([0, 3])) == 0


@pytest.mark.parametrize("budget", [1, 2, 3, 7])
def test_halves_without_weights_get_none_however_much_they_need(budget):
    halves = Halves(np.array([9.0, 1.0, 4.0]), np.ones(3), np.array([0, 4, 5]))
    counts = allocate_halves(halves, budget)
    assert counts[0] == 0
    assert counts.sum() == budget


def test_the_objective_is_the_sum_of_the_bounds_of_sampling():
    """Of each half the ε that its m weights reach: m = c (1/ε + 3/(2ε²)), with c = 2 L S / 3."""
    halves = some_halves(9, 6)
    counts = np.array([1, 2, 5, 20, 100, 199])
    alone = []
    for i in range(6):
        one = Halves(halves.difficulty[i : i + 1], np.ones(1), halves.capacity[i : i + 1])
        epsilon = objective(one, counts[i : i + 1])
        c = 2 * halves.difficulty[i] / 3
        assert c * (1 / epsilon + 1.5 / epsilon**2) == pytest.approx(counts[i])
        alone.append(epsilon)
    assert objective(halves, counts) == pytest.approx(float(halves.priority @ alone))
    idle = Halves(np.array([0.0]), np.ones(1), np.array([3]))
    assert objective(idle, np.array([0])) == 0
