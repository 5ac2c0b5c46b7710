"""Workers of this machine are forks of a process that has loaded all they need."""

import os
import subprocess
import sys

import distributed
import pytest

from onnx_sipp.cluster.dask_pool import local_cluster
from onnx_sipp.cluster.forks import ENVIRONMENT, can_fork, get_ready, workers_here

linux = pytest.mark.skipif(not can_fork(), reason="workers are forks on Linux only")


def known():
    """What a worker finds when it begins."""
    wanted = {"onnx", "numba", "onnx_sipp.cluster.dask_pool", "onnx_sipp.cluster.tasks"}
    return wanted <= set(sys.modules), {name: os.environ.get(name) for name in ENVIRONMENT}


@linux
def test_workers_have_loaded_everything_when_they_begin(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    with local_cluster(2) as cluster, distributed.Client(cluster) as client:
        found = client.run(known)
    assert list(found.values()) == [(True, ENVIRONMENT)] * 2
    assert not set(ENVIRONMENT) & set(os.environ)


@linux
def test_the_environment_of_this_process_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    get_ready()
    assert dict(os.environ) == before


@linux
def test_what_is_loaded_before_a_fork_starts_no_threads():
    count = (
        "import onnx_sipp.cluster.loaded, os, sys; "
        "print(len(os.listdir('/proc/self/task')), 'onnxruntime' in sys.modules, end='')"
    )
    made = subprocess.run(
        [sys.executable, "-c", count], env={**os.environ, **ENVIRONMENT},
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert made.stdout == "1 False"


def test_elsewhere_workers_are_started_anew(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert not can_fork()
    get_ready()  # and that does nothing


@pytest.mark.parametrize(
    ("scheduler", "count"),
    [("local:1", 1), ("local:12", 12), ("local:", None), ("local:x", None), ("tcp://a:1", None)],
)
def test_workers_of_this_machine_are_told_by_their_name(scheduler, count):
    assert workers_here(scheduler) == count
