"""Get ready a process that has loaded what workers need: those of this machine are its forks."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver

__all__ = ["ENVIRONMENT", "can_fork", "environment", "get_ready", "workers_here"]

# Workers are processes of one thread. Dask has glibc give back to the system at once what is freed;
# workers would spend much of their time on getting it again. And tasks run in another thread than
# the first: it would have memory of its own, which is always given back.
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_LOADED = ["onnx_sipp.cluster.loaded"]


def workers_here(scheduler: str) -> int | None:
    """How many workers of this machine ``local:N`` asks for; None for all other schedulers."""
    named = re.fullmatch(r"local:(\d+)", scheduler)
    return None if named is None else int(named[1])


def can_fork() -> bool:
    """Whether workers are forks: only on Linux do the libraries bear it."""
    return sys.platform == "linux"


def get_ready() -> None:
    """Begin to load what workers need, in a process beside this one; it ends with this one."""
    if not can_fork():
        return
    multiprocessing.set_forkserver_preload(_LOADED)
    with environment(ENVIRONMENT):
        forkserver.ensure_running()


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a while, but for those that are set: what is started in it has them.

    Args:
        values: by name.
    """
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]
