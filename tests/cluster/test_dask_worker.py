"""What workers of Dask hold, and the cores that they lend each other."""

import sys
import threading
import time

import distributed
import pytest

from onnx_sipp.cluster.dask_pool import DaskPool, local_cluster
from onnx_sipp.options import available_threads
from onnx_sipp.threads import borrows, side_by_side


def test_workers_forget_what_is_over():
    def known():
        from onnx_sipp.cluster.dask_worker import KNOWN

        return sorted(KNOWN.values())

    with local_cluster(1) as cluster, distributed.Client(cluster) as client:
        pool = DaskPool(client, 1)
        first, second = pool.share("a"), pool.share("b")
        assert client.run(known).popitem()[1] == ["a", "b"]
        pool.forget(first)
        assert client.run(known).popitem()[1] == ["b"]
        pool.forget(second)
        assert client.run(known).popitem()[1] == []


def wait_for(path):
    """Wait for a file."""
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("threads", [1, 2])
def test_tasks_that_are_given_up_end(tmp_path, threads):
    def work(path):
        for _ in range(600):
            side_by_side(time.sleep, [0.1, 0.1], threads)
            path.touch()

    with local_cluster(1) as cluster, distributed.Client(cluster) as client:
        pool = DaskPool(client, 1)
        pool.share(None)
        task = client.submit(work, tmp_path / "begun")
        wait_for(tmp_path / "begun")
        pool.give_up(task)
        begun = time.monotonic()
        assert client.submit(str, 1).result(timeout=60) == "1"
        assert time.monotonic() - begun < 30


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
@pytest.mark.skipif(available_threads() < 2, reason="needs two cores")
def test_workers_lend_each_other_their_cores(tmp_path):
    def sleeping(site, begun, end):
        begun.touch()
        until = time.monotonic() + 60
        while not end.exists() and time.monotonic() < until:
            time.sleep(0.05)

    def counting(site):
        threads = []
        side_by_side(
            lambda _: time.sleep(0.2) or threads.append(threading.get_ident()), range(4), 1
        )
        return len(set(threads))

    with local_cluster(2) as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(2)
        pool = DaskPool(client, 1)
        pool._site = pool.share(None)
        busy = pool.submit(sleeping, tmp_path / "begun", tmp_path / "end")
        wait_for(tmp_path / "begun")
        assert pool.result(pool.submit(counting)) == 1
        (tmp_path / "end").touch()
        pool.result(busy)
        assert pool.result(pool.submit(counting)) == 2
        pool.close()
        assert set(client.run(borrows).values()) == {False}
