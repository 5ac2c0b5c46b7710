"""Garbage is collected again after loading."""

import gc
from threading import Barrier, Thread

import pytest

from onnx_sipp.loading import loading


@pytest.fixture(autouse=True)
def collecting():
    yield
    gc.enable()


def test_nothing_is_collected_meanwhile():
    with loading():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_changes_nothing():
    with pytest.raises(ImportError), loading():
        raise ImportError
    assert gc.isenabled()


def test_what_users_have_turned_off_stays_off():
    gc.disable()
    with loading(), loading():
        pass
    assert not gc.isenabled()


def test_several_threads_load_at_a_time():
    """Whoever is the last."""
    steps = [Barrier(2, timeout=10) for _ in range(3)]
    seen = []

    def work(first):
        if not first:
            steps[0].wait()
        with loading():
            if first:
                steps[0].wait()
            steps[1].wait()
        seen.append(gc.isenabled())
        steps[2].wait()

    threads = [Thread(target=work, args=(first,)) for first in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gc.isenabled()
    assert len(seen) == 2
