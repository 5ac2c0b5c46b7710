"""What a worker of Dask holds: what it was told, and the cores that it lends and borrows."""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distributed

from onnx_sipp.allocator import give_back_freed_memory
from onnx_sipp.cluster.seat import Seat
from onnx_sipp.cluster.site import Payload, Site
from onnx_sipp.threads import borrow_from, borrow_no_more, borrows, one_blas_thread, working

__all__ = ["KNOWN", "Knowledge", "Name", "call"]

# Of this process, if it is a worker: what was sent to it, by name.
KNOWN: dict[str, Any] = {}


@dataclass(frozen=True)
class Name:
    """Stands for what all workers know under a name."""

    name: str


class _Unwanted(Exception):  # noqa: N818 - nothing went wrong
    """Nobody waits for the result of a task any more."""


class _Lender:
    """Lends a worker the cores of others, for tasks that were not given up.

    There is nothing to lend where workers have several threads, or files cannot be locked.
    """

    def __init__(self, worker: distributed.Worker) -> None:
        self._worker = worker
        self._seat: Seat | None = None
        if sys.platform != "win32" and worker.state.nthreads == 1:
            # Folders may be shared with other machines, too.
            name = re.sub(r"\W+", "-", f"{worker.scheduler.address}-{socket.gethostname()}")
            with suppress(OSError):
                self._seat = Seat(Path(worker.local_directory), name)

    @contextmanager
    def lent(self, most: int, threads: int) -> Iterator[int]:
        """See `Lender.lent`.

        Raises:
            _Unwanted: the task was given up.
        """
        key = self._worker.active_threads.get(threading.get_ident())
        task = None if key is None else self._worker.state.tasks.get(key)
        if task is not None and task.state == "cancelled":
            raise _Unwanted
        if task is None or not most or self._seat is None:
            yield 0
            return
        with self._seat.lent(most, threads) as more:
            yield more

    def working(self) -> AbstractContextManager[None]:
        """See `Lender.working`; the core is waited for, but not for ever."""
        return nullcontext() if self._seat is None else self._seat.in_use()

    def leave(self) -> None:
        """See `Lender.leave`."""
        if self._seat is not None:
            self._seat.leave()


class Knowledge(distributed.WorkerPlugin):  # type: ignore[misc]
    """Lets a worker know something under a name."""

    def __init__(self, name: str, value: Any) -> None:
        self.name, self._value = name, value

    def setup(self, worker: Any) -> None:
        """Take it in."""
        if not borrows():
            borrow_from(_Lender(worker))
        known = self._value
        if isinstance(known, Payload):
            known = Site(known)
            known.get_ready()
        KNOWN[self.name] = known

    def teardown(self, worker: Any) -> None:
        """Forget it."""
        del worker
        KNOWN.pop(self.name, None)
        if not KNOWN:
            borrow_no_more()
            give_back_freed_memory()


def call(site: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function with what this worker knows.

    Args:
        site: name of the site, its first argument.
        function: a task.
        *arguments: the others; what a `Name` stands for is put in its place.
    """
    given = [KNOWN[a.name] if isinstance(a, Name) else a for a in arguments]
    with working(), one_blas_thread():
        return function(KNOWN[site], *given)
