"""Sums of a layer: all products are made by one multiplier, and those too large are told."""

import numpy as np
import pytest

from onnx_sipp.refitting.layer_sums import Sums
from onnx_sipp.statistics.gram import VERY_WIDE, WIDE
from onnx_sipp.statistics.multiplying import NUMPY


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
