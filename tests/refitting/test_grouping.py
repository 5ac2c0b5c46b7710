"""Small pieces are joined, and items parted into groups; nothing is lost by that."""

import numpy as np
import pytest

from onnx_sipp.refitting import grouping
from onnx_sipp.refitting.grouping import fitting, joined


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
    monkeypatch.setattr(grouping, "_JOINED_BYTES", limit)
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
    monkeypatch.setattr(grouping, "_JOINED_BYTES", 1)
    (piece,) = made([4], [False])
    assert next(joined([piece])) is piece


@pytest.mark.parametrize(
    ("limit", "groups"),
    [(0, [[3], [1], [2], [9], [1]]), (4, [[3, 1], [2], [9], [1]]), (99, [[3, 1, 2, 9, 1]])],
)
def test_items_are_grouped_as_they_fit(limit, groups):
    assert list(fitting([3, 1, 2, 9, 1], int, limit)) == groups


def test_nothing_makes_no_group():
    assert list(fitting([], int, 1)) == []
