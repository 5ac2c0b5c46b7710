"""Sums for the refit: small pieces are joined; all products are made by one multiplier."""

import numpy as np
import pytest

from onnx_sipp.refitting import layer_sums
from onnx_sipp.refitting.layer_sums import Sums, fitting, joined
from onnx_sipp.statistics.gram import VERY_WIDE, WIDE
from onnx_sipp.statistics.multiplying import NUMPY


def made(sizes, judges):
    rng = np.random.default_rng(0)
    for size, judge in zip(sizes, judges, strict=True):
        columns = rng.standard_normal((2, 3, size)).astype(np.float32)
        yield judge, columns, [rng.standard_normal((2, 5, size)).astype(np.float32)]


@pytest.mark.parametrize(
    ("sizes", "limit", "count"),
    [([4] * 8, 1 << 20, 2), ([4] * 8, 1, 8), ([9, 1, 1, 9], 10 * 64, 3), ([], 1, 0)],
)
def test_nothing_is_lost_and_kinds_stay_apart(monkeypatch, sizes, limit, count):
    monkeypatch.setattr(layer_sums, "_JOINED_BYTES", limit)
    judges = [4 * n >= 3 * len(sizes) for n in range(len(sizes))]
    found = list(joined(made(sizes, judges)))
    assert len(found) == count
    for judge in (False, True):
        before = [piece for piece in made(sizes, judges) if piece[0] == judge]
        after = [piece for piece in found if piece[0] == judge]
        assert bool(before) == bool(after)
        for part in (lambda piece: piece[1], lambda piece: piece[2][0]):
            if before:
                np.testing.assert_array_equal(
                    np.concatenate([part(piece) for piece in after], axis=2),
                    np.concatenate([part(piece) for piece in before], axis=2),
                )


def test_what_is_large_enough_is_not_copied(monkeypatch):
    monkeypatch.setattr(layer_sums, "_JOINED_BYTES", 1)
    (piece,) = made([4], [False])
    assert next(joined([piece])) is piece


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("patches", [3, 2000])
@pytest.mark.parametrize("judge", [False, True])
def test_what_float32_has_no_room_for_is_told(patches, judge):
    columns = np.random.default_rng(0).standard_normal((1, VERY_WIDE + 1, patches), np.float32)
    for scale, told in ((1.0, False), (2.0**70, True)):
        values = columns * np.float32(scale)
        sums, other = Sums.empty((1, 2, VERY_WIDE + 1)), Sums.empty((1, 2, VERY_WIDE + 1))
        for part in (sums, other):
            part.make_room()
            part.gram_of(judge=judge).update(values)
            part.cross_of(judge=judge).update(values, values[:, :2])
        sums.merge(other)
        assert sums.too_large == told


@pytest.mark.parametrize("judge", [False, True])
def test_all_sums_have_the_multiplier(judge):
    held = []

    class Counting:
        def hold(self, matrix):
            held.append(matrix.shape)
            return NUMPY.hold(matrix)

    sums = Sums.empty((2, 3, WIDE), Counting())
    columns = np.ones((2, WIDE, WIDE), np.float32)
    sums.cross_of(judge=judge).update(columns, np.ones((2, 3, WIDE), np.float32))
    assert held == [(2, WIDE, WIDE)]
    sums.make_room()
    sums.gram_of(judge=judge).update(columns)
    assert held[1:] == [(WIDE, WIDE)] * 2


@pytest.mark.parametrize(
    ("limit", "groups"),
    [(0, [[3], [1], [2], [9], [1]]), (4, [[3, 1], [2], [9], [1]]), (99, [[3, 1, 2, 9, 1]])],
)
def test_items_are_grouped_as_they_fit(limit, groups):
    assert list(fitting([3, 1, 2, 9, 1], int, limit)) == groups


def test_nothing_makes_no_group():
    assert list(fitting([], int, 1)) == []
