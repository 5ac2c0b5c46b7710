"""Samples that are read once."""

import numpy as np
import pytest

from onnx_sipp.calibration import held
from onnx_sipp.calibration.held import Held


class Counting:
    """A source that counts how often its feeds are made."""

    description, synthetic, notes, restarts = "what it is", True, ("a note",), (0, 2)

    def __init__(self, feeds):
        self._feeds, self.made = feeds, 0

    def __len__(self):
        return len(self._feeds)

    def __iter__(self):
        for feed in self._feeds:
            self.made += 1
            yield feed


def feeds(count=3, size=10):
    whole = np.arange(2 * count * size, dtype=np.float32).reshape(2 * count, size)
    return [{"x": whole[2 * n : 2 * n + 1]} for n in range(count)]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name])


def test_few_samples_are_read_once():
    source = Counting(feeds())
    kept = Held(source)
    for _ in range(3):
        assert_same(list(kept), feeds())
    assert source.made == 3
    assert all(feed["x"].base is None for feed in kept), "something larger is held"


def test_what_the_source_is_can_be_asked():
    kept = Held(Counting(feeds()))
    assert (len(kept), kept.description, kept.synthetic) == (3, "what it is", True)
    assert (kept.notes, kept.restarts) == (("a note",), (0, 2))


@pytest.mark.parametrize(("limit", "made"), [(120, 3), (119, 9)])
def test_many_samples_are_read_anew(monkeypatch, limit, made):
    monkeypatch.setattr(held, "HELD_BYTES", limit)
    source = Counting(feeds())
    kept = Held(source)
    for _ in range(3):
        assert_same(list(kept), feeds())
    assert source.made == made


@pytest.mark.parametrize("value", [[np.zeros(3)], np.array(["text"], object), None], ids=str)
def test_what_is_no_tensor_of_numbers_is_read_anew(value):
    source = Counting([{"x": value}])
    kept = Held(source)
    assert [list(kept) for _ in range(2)] == [[{"x": value}]] * 2
    assert source.made == 2


def test_samples_that_were_not_all_read_are_read_again():
    source = Counting(feeds())
    kept = Held(source)
    next(iter(kept))
    assert_same(list(kept), feeds())
    assert_same(list(kept), feeds())
    assert source.made == 4
