"""Sums for the refit: small pieces are joined; all products are made by one multiplier."""

import numpy as np
import pytest

from onnx_sipp.refitting import layer_sums
from onnx_sipp.refitting.layer_sums import Sums, joined
from onnx_sipp.statistics.gram import WIDE
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
    judges = [bool(n % 4 == 3) for n in range(len(sizes))]
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
