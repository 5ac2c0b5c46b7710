"""Weights made of stored elements, read and written."""

import numpy as np
import pytest

from onnx_sipp.graph.lowering.grid import Grid
from onnx_sipp.graph.lowering.virtual import Numbering, Virtual

NUMBERING = Numbering([3, 0, 4])
PAYLOADS = {
    0: np.array([1, 2, 3], np.float32),
    2: np.array([[4, 5], [6, 7]], np.float16),
}


def virtual(ids, dtype=np.float32, grid=None):
    return Virtual(np.array(ids), np.dtype(dtype), grid, ("Op",), "node", "operand")


def test_numbering():
    assert [NUMBERING.of(site).tolist() for site in range(3)] == [[1, 2, 3], [], [4, 5, 6, 7]]
    assert [NUMBERING.first(site) for site in (0, 2)] == [1, 4]
    parts = [
        (site, places.tolist(), inside.tolist())
        for site, places, inside in NUMBERING.split(np.array([[7, 1], [4, 3]]))
    ]
    assert parts == [(0, [1, 3], [0, 2]), (2, [0, 2], [3, 0])]


def test_read():
    found = virtual([[7, 1], [4, 3]]).decode(NUMBERING, PAYLOADS.__getitem__)
    assert found.dtype == np.float32
    assert found.tolist() == [[7, 1], [4, 3]]


def test_write():
    """Each element goes to its own place, in the type stored there; the others stay."""
    weight = virtual([[7, 1], [4, 3]])
    values = np.array([[0, 10], [0.1, 30]], np.float32)
    before = {site: payload.copy() for site, payload in PAYLOADS.items()}
    found = weight.encode(values, NUMBERING, PAYLOADS.__getitem__)
    assert found[0].tolist() == [10, 2, 30]
    assert found[2].dtype == np.float16
    assert found[2].tolist() == [[float(np.float16(0.1)), 5], [6, 0]]
    for site, payload in before.items():
        np.testing.assert_array_equal(PAYLOADS[site], payload)
    read = weight.decode(NUMBERING, found.__getitem__)
    np.testing.assert_array_equal(read, values.astype(np.float16).astype(np.float32))


def test_what_stays_keeps_its_bits():
    """A float64 value reads as float32; written back as that, it is left alone."""
    stored = np.array([1 / 3, 1e-300, 2], np.float64)
    weight = virtual([1, 2, 3])
    values = weight.decode(NUMBERING, lambda site: stored)
    assert values[1] == 0
    found = weight.encode(values, NUMBERING, lambda site: stored)
    assert found[0].tolist() == [1 / 3, 0, 2]  # but what reads as zero is zero


@pytest.mark.parametrize("stored", [True, False])
def test_on_a_grid(stored):
    payload = np.array([4, 5, 6], np.int8 if stored else np.float32)
    grid = Grid(np.full(2, 0.5, np.float32), np.array([4, 0]), np.dtype(np.int8), stored)
    weight = virtual([3, 1], grid=grid)
    values = weight.decode(NUMBERING, lambda site: payload)
    assert values.tolist() == ([1, 2] if stored else [6, 4])
    found = weight.encode(np.array([0, 7.3], np.float32), NUMBERING, lambda site: payload)
    assert found[0].tolist() == ([15, 5, 4] if stored else [7.5, 5, 0])
