"""Workers of Dask: the same bytes whatever their number, and whoever dies."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import distributed
import psutil
import pytest
from crews import DATA, IMAGES, assert_alike, convolutions
from small_models import deep

from onnx_sipp import SippError, UsageError, calibrate, prune
from onnx_sipp.checked import checked_options
from onnx_sipp.cluster.dask_pool import dask_pool, local_cluster
from onnx_sipp.cluster.hiring import hired
from onnx_sipp.threads import _lenders, borrows, working

OPTIONS = {"sparsity": 0.6, "threads": 1, "batch_size": 8}
CASES = {"shared": (deep, DATA), "conv": (convolutions, IMAGES)}


class Killer:
    """Kills a worker when a stage has come so far."""

    def __init__(self, stage, count):
        self._stage, self._count = stage, count
        self.now, self.killed = "", 0

    def stage(self, name):
        self.now, self.seen = name, 0

    def advance(self, amount, total):
        self.seen += 1
        if self.now == self._stage and self.seen == self._count:
            worker = workers()[0]
            os.kill(worker, signal.SIGKILL)
            self.killed += 1


def workers():
    """Processes of the workers of this process: forks of one that has loaded all they need."""
    return [child.pid for one in psutil.Process().children() for child in one.children()]


@pytest.fixture(scope="module")
def expected():
    """What one worker makes."""
    return {
        name: prune(model(), data, scheduler="local:1", **OPTIONS)
        for name, (model, data) in CASES.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_one_worker_does_what_one_process_does(expected, name):
    model, data = CASES[name]
    assert_alike(expected[name], prune(model(), data, **OPTIONS))


@pytest.mark.parametrize("count", [2, 4])
def test_the_number_of_workers_changes_nothing(expected, count):
    model, data = CASES["shared"]
    found = prune(model(), data, scheduler=f"local:{count}", **OPTIONS)
    assert found.model.SerializeToString() == expected["shared"].model.SerializeToString()
    assert workers() == []


def test_workers_keep_the_memory_they_freed():
    with local_cluster(1) as cluster, distributed.Client(cluster) as client:
        (found,) = client.run(lambda: dict(os.environ)).values()
    assert int(found["MALLOC_TRIM_THRESHOLD_"]) >= 1 << 20
    assert int(found["MALLOC_MMAP_THRESHOLD_"]) >= 1 << 20


def test_workers_of_other_machines_are_not_here():
    def elsewhere(dask_worker):
        import socket

        socket.gethostname = lambda: f"host of {dask_worker.name}"

    with local_cluster(2) as cluster:
        address = cluster.scheduler_address
        with dask_pool(address) as pool:
            assert pool.cores_here == 2
        with distributed.Client(cluster) as client:
            client.run(elsewhere, workers=[next(iter(client.nthreads()))])
        with dask_pool(address) as pool:
            assert pool.cores_here == 1


@pytest.mark.parametrize(
    ("cores", "here", "most", "more"),
    [(4, 4, 9, 3), (4, 4, 2, 2), (8, 3, 9, 2), (2, 4, 9, 1), (4, 0, 9, 3), (4, 1, 9, 0),
     (1, 1, 5, 0), (2, 2, 0, 0)],
    ids=str,
)  # fmt: skip
def test_this_process_has_the_cores_of_its_workers_here(monkeypatch, cores, here, most, more):
    """Of which it has one itself; where there are none, it has those of its machine."""
    pool = SimpleNamespace(cores_here=here)
    monkeypatch.setattr("onnx_sipp.cluster.hiring.available_threads", lambda: cores)
    monkeypatch.setattr("onnx_sipp.cluster.dask_pool.dask_pool", lambda _: nullcontext(pool))
    with hired("tcp://nowhere") as crew:
        assert borrows()
        crew._hire()
        with _lenders[0].lent(most, 1) as found, working():
            assert found == more
    assert not borrows()


@contextmanager
def waiting(began, ended):
    """A pool that is there when something has begun, and tells when it is left."""
    began.wait(60)
    try:
        yield SimpleNamespace(cores_here=2)
    finally:
        ended.set()


@pytest.mark.parametrize(("scheduler", "cores"), [("tcp://nowhere", 1), ("local:3", 3)])
def test_workers_are_waited_for_when_they_are_needed(monkeypatch, scheduler, cores):
    """Until then, only those that are asked for on this machine are known to have cores."""
    began, ended = threading.Event(), threading.Event()
    monkeypatch.setattr("onnx_sipp.cluster.hiring.available_threads", lambda: 4)
    monkeypatch.setattr("onnx_sipp.cluster.dask_pool.dask_pool", lambda _: waiting(began, ended))
    with hired(scheduler) as crew:
        with _lenders[0].lent(9, 1) as found:
            assert found == cores - 1
        began.set()
        assert crew._pool is crew._hire()
        assert not ended.is_set()
    assert ended.is_set()


@contextmanager
def failing(*, late):
    """A pool that cannot be had, or not be left."""
    if late:
        yield SimpleNamespace(cores_here=1)
    raise SippError("the scheduler is away")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    "work", [lambda crew: crew._hire(), lambda crew: None], ids=["some", "none"]
)
def test_workers_that_fail_are_told_of(monkeypatch, work, late):
    """At the latest at the end, even if they had nothing to do."""
    monkeypatch.setattr("onnx_sipp.cluster.dask_pool.dask_pool", lambda _: failing(late=late))
    with pytest.raises(SippError, match="is away"), hired("tcp://nowhere") as crew:
        work(crew)
    assert not borrows()


def test_what_went_wrong_first_is_told(monkeypatch):
    monkeypatch.setattr("onnx_sipp.cluster.dask_pool.dask_pool", lambda _: failing(late=False))
    with pytest.raises(ValueError, match="first"), hired("tcp://nowhere"):
        raise ValueError("first")
    assert not borrows()


@pytest.mark.parametrize(
    ("stage", "count", "number"),
    [("calibrating", 1, 2), ("measuring layers", 1, 1), ("measuring layers", 2, 2),
     ("comparing budgets", 1, 2)],
)  # fmt: skip
def test_a_killed_worker_changes_nothing(expected, stage, count, number):
    model, data = CASES["conv"]
    killer = Killer(stage, count)
    found = prune(model(), data, scheduler=f"local:{number}", progress=killer, **OPTIONS)
    assert killer.killed
    assert found.model.SerializeToString() == expected["conv"].model.SerializeToString()


def test_errors_of_workers_arrive():
    data = DATA.copy()
    data[3] = 3e38
    with pytest.raises(SippError, match="not finite"):
        calibrate(deep(), data, scheduler="local:1")
    assert workers() == []


# --- a scheduler elsewhere -----------------------------------------------------------------------


@pytest.fixture
def place():
    """An address that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def started():
    """Starts commands, and ends them."""
    running = []

    def start(*command):
        running.append(subprocess.Popen(
            [sys.executable, "-m", "distributed.cli." + command[0], *command[1:]],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ))  # fmt: skip

    yield start
    for process in reversed(running):
        process.terminate()
    for process in running:
        process.wait(20)


def test_a_cluster_that_is_there(expected, place, started):
    port = place.rpartition(":")[2]
    started("dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    for _ in range(2):
        started("dask_worker", place, "--nthreads", "1", "--no-dashboard")
    model, data = CASES["shared"]
    deadline = time.monotonic() + 30
    while True:
        try:
            found = prune(model(), data, scheduler=place, **OPTIONS)
            break
        except SippError:
            if time.monotonic() > deadline:
                raise
    assert found.model.SerializeToString() == expected["shared"].model.SerializeToString()


def test_a_scheduler_without_workers(monkeypatch, place, started):
    monkeypatch.setattr("onnx_sipp.cluster.dask_pool._APPEAR", 1)
    port = place.rpartition(":")[2]
    started("dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    with pytest.raises(SippError, match="has no workers; start some: `dask worker tcp://"):
        prune(deep(), DATA, scheduler=place, **OPTIONS)


def test_a_scheduler_that_is_not_there(monkeypatch, place):
    monkeypatch.setattr("onnx_sipp.cluster.dask_pool._ANSWER", 2)
    begun = time.monotonic()
    with pytest.raises(SippError, match="does not answer within 2 s"):
        prune(deep(), DATA, scheduler=place, **OPTIONS)
    assert time.monotonic() - begun < 10


def test_dask_is_not_installed(monkeypatch):
    monkeypatch.setattr("onnx_sipp.cluster.hiring.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'onnx-sipp\[cluster\]'"):
        prune(deep(), DATA, scheduler="local:1", **OPTIONS)


@pytest.mark.parametrize("scheduler", ["local", "local:0", "local:x", "host:8786", "http://host"])
def test_impossible_names(scheduler):
    with pytest.raises(UsageError, match="scheduler must be an address"):
        checked_options({"scheduler": scheduler})


def test_without_a_scheduler_nothing_of_dask_is_loaded():
    code = (
        "import sys, numpy, onnx_sipp\n"
        "from small_models import deep\n"
        "onnx_sipp.prune(deep(), numpy.ones((8, 4), numpy.float32), method='magnitude')\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('dask', 'distributed')]"
    )
    path = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=True)
