"""The order of removal against one that refits from scratch for every unit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import layer, unjudged

from onnx_sipp.pruning import elimination
from onnx_sipp.pruning.elimination import Reader, eliminated, ranked_by_sensitivity
from onnx_sipp.pruning.evidence import damping_for
from onnx_sipp.statistics import regression as regression_module


def evidence(seed, shape, samples=60):
    problem, weight = layer(seed, shape, samples, correlation=1)
    return unjudged(seed, problem, weight, gains=(0.5, 2), samples=samples)


def loss(reader, gone):
    """Least of the damped error of a reader without some units, relative to its power."""
    found, total = reader.evidence, 0.0
    for group in range(len(found.weight)):
        h = found.fit.gram[group].astype(np.float64)
        shift = damping_for(found) * np.trace(h) / len(h)
        h = h + shift * np.eye(len(h))
        active = ~np.isin(reader.units[group], gone)
        for out, rate in enumerate(found.rate[group]):
            right = (found.fit.cross[group, out] + shift * found.weight[group, out])[active]
            total -= rate * right @ np.linalg.solve(h[np.ix_(active, active)], right)
    return total / found.power


@given(st.integers(0, 999))
@settings(deadline=None, max_examples=20)
def test_order_and_errors_are_those_of_refitting_from_scratch(seed):
    # Units of two inputs and one that stays in the one reader, of one input in the other.
    readers = [
        Reader(evidence(seed, (1, 3, 9)), np.array([[0, 0, 1, 1, 2, 2, 3, 3, -1]])),
        Reader(evidence(seed + 1, (2, 2, 4)), np.array([[0, 1, 2, 3], [3, 2, 1, 0]])),
    ]
    order = eliminated(readers, 4)
    gone, start = [], sum(loss(reader, []) for reader in readers)
    for unit, error in zip(order.units, order.errors[1:], strict=True):
        left = [u for u in range(4) if u not in gone]
        tried = {u: sum(loss(reader, [*gone, u]) for reader in readers) for u in left}
        assert min(tried, key=tried.get) == unit
        np.testing.assert_allclose(error, tried[unit] - start, rtol=1e-6, atol=1e-9)
        gone.append(int(unit))


def test_kept_units_are_the_last_to_go():
    readers = [Reader(evidence(3, (1, 4, 6)), np.arange(6)[None])]
    order = eliminated(readers, 6)
    assert sorted(order.units) == list(range(6))
    assert set(order.kept(2)) == set(order.units[-2:])
    assert order.kept(6).tolist() == list(range(6))


def test_units_that_nothing_reads_go_first_and_cost_nothing():
    readers = [Reader(evidence(4, (1, 4, 4)), np.array([[0, 2, 3, -1]]))]
    order = eliminated(readers, 4)
    assert order.units[0] == 1
    assert order.errors[1] == 0


def test_sensitivity_of_a_unit_is_the_largest_of_its_weights():
    found = evidence(5, (1, 2, 4))
    found.sensitivity[:] = 0.1
    found.sensitivity[0, 1, 2] = 0.9  # of unit 0
    found.sensitivity[0, 0, 0] = 0.5  # of unit 1
    order = ranked_by_sensitivity([Reader(found, np.array([[1, 2, 0, 2]]))], 3)
    assert order.units.tolist() == [2, 1, 0]
    # What stays anyway is of no unit.
    found.sensitivity[0, 1, 3] = 0.95
    order = ranked_by_sensitivity([Reader(found, np.array([[1, 2, 0, -1]]))], 3)
    assert order.units.tolist() == [2, 1, 0]


def test_units_of_very_wide_readers_cost_what_their_inputs_carry(monkeypatch):
    """Without H⁻¹: rate · w² · E a², summed over what a unit is, at any place in the order."""
    monkeypatch.setattr(regression_module, "VERY_WIDE", 7)
    reader = Reader(evidence(6, (2, 3, 8)), np.array([[0, 1, 1, 2, 3, 3, 3, -1]] * 2))
    found = reader.evidence
    assert found.fit.is_very_wide
    carried = found.gain[..., None] ** 2 * found.weight**2 * found.fit.diagonal[:, None]
    total = np.sum(found.gain**2 * found.fit.spread())
    costs = [carried[..., reader.units[0] == unit].sum() / total for unit in range(4)]
    order = eliminated([reader], 4)
    assert order.units.tolist() == np.argsort(costs).tolist()
    np.testing.assert_allclose(order.errors, [0, *np.cumsum(np.sort(costs))])


def test_many_units_go_some_at_a_time(monkeypatch):
    """Three at a time: the first three are the cheapest three of all, as they are at the start."""
    monkeypatch.setattr(elimination, "_STEPS", 3)
    reader = Reader(evidence(7, (1, 4, 9)), np.arange(9)[None])
    order = eliminated([reader], 9)
    start = loss(reader, [])
    alone = np.array([loss(reader, [unit]) - start for unit in range(9)])
    assert order.units[:3].tolist() == np.argsort(alone)[:3].tolist()
    np.testing.assert_allclose(np.diff(order.errors)[:3], np.sort(alone)[:3])
    gone = order.units[:3].tolist()
    later = {unit: loss(reader, [*gone, unit]) - loss(reader, gone) for unit in order.units[3:]}
    assert order.units[3:6].tolist() == sorted(later, key=later.get)[:3]
    assert sorted(order.units) == list(range(9))
