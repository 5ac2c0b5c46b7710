"""Workers of Dask distributed.

What all workers need travels as a plugin: once to every worker, and to those that take the place of
others. Nothing is lost with a worker but results, and Dask makes those again.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import dask
import distributed

from onnx_sipp import __version__
from onnx_sipp.cluster.dask_worker import Knowledge, Name, call
from onnx_sipp.cluster.forks import ENVIRONMENT, can_fork, environment, get_ready, workers_here
from onnx_sipp.cluster.site import Payload
from onnx_sipp.errors import SippError

__all__ = ["DaskPool", "dask_pool", "local_cluster"]

# Workers of this machine have one core each: none of it is spent on watching them at work.
_UNWATCHED = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
}
# Seconds that a scheduler has to answer in, and that workers have to appear in.
_ANSWER, _APPEAR = 10, 60


@dataclass(frozen=True)
class _About:
    """Of a worker: the onnx-sipp that it has, its machine, and its threads."""

    version: str
    machine: str
    threads: int


def _about(dask_worker: distributed.Worker) -> _About:
    return _About(__version__, socket.gethostname(), dask_worker.state.nthreads)


async def _load() -> None:
    """Load what tasks need while the model is still being read; Dask waits for plain functions."""
    import onnx_sipp.cluster.tasks  # noqa: F401, PLC0415


class DaskPool:
    """See `pool.Pool`.

    Args:
        client: of the scheduler.
        cores_here: see `cores_here`.

    Attributes:
        cores_here: threads of the workers on this machine.
    """

    def __init__(self, client: distributed.Client, cores_here: int) -> None:
        self._client, self.cores_here = client, cores_here
        self._site = Name("")
        self._told: list[str] = []

    def equip(self, payload: Payload) -> None:
        """See `Pool.equip`."""
        self._site = self.share(payload)

    def share(self, value: Any) -> Name:
        """See `Pool.share`."""
        name = f"onnx-sipp-{uuid4().hex}"
        self._told.append(name)
        with _understood():
            self._client.register_plugin(Knowledge(name, value), name=name)
        return Name(name)

    def forget(self, shared: Name) -> None:
        """See `Pool.forget`."""
        self._told.remove(shared.name)
        with suppress(Exception):  # they may be gone
            self._client.unregister_worker_plugin(shared.name)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> distributed.Future:
        """See `Pool.submit`."""
        # Dask reckons with what tasks of the same name took; those of other layers take longer.
        which = "".join(f"_{a}" for a in arguments if type(a) is int)
        key = f"{function.__name__}{which}-{uuid4().hex}"
        return self._client.submit(call, self._site.name, function, *arguments, key=key)

    def has_room(self, running: int) -> bool:
        """See `Pool.has_room`."""
        with _understood():
            return running < sum(map(int, self._client.nthreads().values()))

    def give_up(self, task: distributed.Future) -> None:
        """See `Pool.give_up`."""
        with _understood():
            task.cancel()

    def as_done(self, tasks: Sequence[distributed.Future]) -> Iterator[int]:
        """See `Pool.as_done`."""
        places = {task.key: place for place, task in enumerate(tasks)}
        with _understood():
            for task in distributed.as_completed(tasks):
                yield places[task.key]

    def result(self, task: distributed.Future) -> Any:
        """See `Pool.result`."""
        with _understood():
            return task.result()

    def close(self) -> None:
        """Let the workers forget everything."""
        for name in list(self._told):
            self.forget(Name(name))


@contextmanager
def _understood() -> Iterator[None]:
    """Turn what happens to workers into errors for people.

    Raises:
        SippError: in place of the cause.
    """
    try:
        yield
    except distributed.KilledWorker as error:
        raise SippError(
            f"workers died again and again over the same piece of work ({error.task}), maybe for "
            "want of memory: give them more, use fewer samples, or a smaller --batch-size"
        ) from error
    except (distributed.CancelledError, OSError, TimeoutError) as error:
        raise SippError(
            f"the connection to the scheduler was lost: {error or type(error).__name__}"
        ) from error


@contextmanager
def local_cluster(workers: int) -> Iterator[distributed.LocalCluster]:
    """Start workers on this machine, processes that run one task at a time."""
    get_ready()
    start = {"distributed.worker.multiprocessing-method": "forkserver"} if can_fork() else {}
    # Workers that take the place of others start by the same settings.
    with (
        environment(ENVIRONMENT),
        dask.config.set({**_UNWATCHED, **start}),
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True,
            dashboard_address="127.0.0.1:0", memory_limit=0, silence_logs=logging.CRITICAL,
        ) as cluster,
    ):  # fmt: skip
        yield cluster


@contextmanager
def dask_pool(scheduler: str) -> Iterator[DaskPool]:
    """Connect to a scheduler, or start one with workers on this machine.

    Args:
        scheduler: its address, or ``local:N``.

    Raises:
        SippError: it cannot be reached, has no workers, or they have another onnx-sipp.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is raised
    here = workers_here(scheduler)
    if here is not None:
        with local_cluster(here) as cluster, distributed.Client(cluster) as client:
            yield from _working(client, scheduler)
        return
    try:
        client = distributed.Client(scheduler, timeout=_ANSWER)
    except (OSError, TimeoutError, ValueError) as error:
        raise SippError(
            f"the scheduler {scheduler} does not answer within {_ANSWER} s; is it running "
            "(`dask scheduler`), and can this machine reach it?"
        ) from error
    with client:
        yield from _working(client, scheduler)


def _working(client: distributed.Client, scheduler: str) -> Iterator[DaskPool]:
    try:
        client.wait_for_workers(1, timeout=_APPEAR)
    except TimeoutError as error:
        raise SippError(
            f"the scheduler {scheduler} has no workers; start some: `dask worker {scheduler}`"
        ) from error
    try:
        workers = client.run(_about).values()
    except Exception as error:  # whatever a worker without this package raises
        raise SippError(
            f"the workers of {scheduler} cannot import onnx-sipp {__version__}: {error}; install "
            "it there"
        ) from error
    versions = {worker.version for worker in workers}
    if versions != {__version__}:
        raise SippError(
            f"the workers of {scheduler} have onnx-sipp {', '.join(sorted(versions))}, but this "
            f"is {__version__}; install the same everywhere"
        )
    client.run(_load, wait=False)
    here = (worker.threads for worker in workers if worker.machine == socket.gethostname())
    pool = DaskPool(client, sum(here))
    try:
        yield pool
    finally:
        pool.close()
