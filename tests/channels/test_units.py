"""Joining units, and what is fixed."""

import numpy as np

from onnx_sipp.channels.units import FIXED, Units, tied_by


def test_joined_units_have_one_root():
    units = Units()
    a, b, c = (units.fresh(3) for _ in range(3))
    units.join(a, b, "x")
    units.join(b, c[::-1], "x")
    assert units.roots(a).tolist() == units.roots(b).tolist() == units.roots(c)[::-1].tolist()
    assert len(set(units.roots(a).tolist())) == 3


def test_what_meets_something_fixed_is_fixed_for_that_reason():
    units = Units()
    a, b = units.fresh(2), units.fresh(2)
    units.join(a, np.array([FIXED, b[0]]), "it meets the outside")
    assert units.reason(a[0]) == "it meets the outside"
    assert units.reason(a[1]) == ""
    units.fix(b[1:], "later")
    units.join(a[1:], b[1:], "now")
    assert units.reason(a[1]) == units.reason(b[0]) == "later"


def test_fixed_units_stay_apart():
    units = Units()
    a = units.fresh(2)
    units.join(a, np.full(2, FIXED), "x")
    assert len(set(units.roots(a).tolist())) == 2


def test_tying_by_a_coordinate():
    units = Units()
    ids = units.fresh(6)
    found = tied_by(units, ids, np.arange(6) % 2, 2, "x")
    assert units.roots(ids).tolist() == units.roots(found[np.arange(6) % 2]).tolist()
