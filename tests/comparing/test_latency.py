"""Times of sessions that take turns."""

import time

import numpy as np
import pytest
from small_models import weights

from onnx_sipp.calibration.specs import InputSpec
from onnx_sipp.comparing import latency
from onnx_sipp.comparing.footprint import zstd_bytes
from onnx_sipp.comparing.spread import median_and_spread


class Slow:
    """A session that takes so many milliseconds, and more and more on a machine that slows down."""

    machine = 1.0

    def __init__(self, milliseconds):
        self.seconds = milliseconds / 1000

    def run(self, outputs, feed):
        Slow.machine *= 1.005
        end = time.thread_time() + self.seconds * Slow.machine
        while time.thread_time() < end:
            pass
        return []


def test_a_machine_that_slows_down_does_not_matter(monkeypatch):
    monkeypatch.setattr(Slow, "machine", 1.0)
    speeds = {0: 1, 1: 2}
    order = []

    def open_session(path, **options):
        order.append(path)
        return Slow(speeds[path])

    monkeypatch.setattr(latency, "open_session", open_session)
    (row,) = latency.measure_latency((0, 1), {3: {}}, [1], 0.1)
    assert row.ratio == pytest.approx(2, rel=0.05)
    assert Slow.machine > 1.2
    assert order[:4] == [0, 1, 1, 0]
    assert (row.batch, row.threads, row.working) == (3, 1, True)
    assert row.pruned_seconds > row.dense_seconds >= 1e-3


def test_batches():
    feeds = [{"x": weights(1, 4, seed=seed)} for seed in range(3)]
    open_batch = [InputSpec("x", np.dtype(np.float32), ("n", 4))]
    made, left = latency.batched(feeds, open_batch, [1, 5])
    assert left == []
    assert made[1]["x"].shape == (1, 4)
    expected = np.concatenate([feeds[index]["x"] for index in (0, 1, 2, 0, 1)])
    assert np.array_equal(made[5]["x"], expected)
    fixed = [InputSpec("x", np.dtype(np.float32), (1, 4))]
    assert latency.batched(feeds, fixed, [1, 5])[1] == [5]


def test_median_and_spread():
    assert median_and_spread([5, 1, 2, 4, 3]) == (3, 2)


def test_zstd_bytes(tmp_path):
    (tmp_path / "zeros").write_bytes(bytes(1 << 20))
    noise = np.random.default_rng(0).bytes(1 << 20)
    (tmp_path / "noise").write_bytes(noise)
    assert zstd_bytes(tmp_path / "zeros") < 1000
    assert zstd_bytes(tmp_path / "noise") == pytest.approx(1 << 20, rel=0.01)
