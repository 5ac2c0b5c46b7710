"""From the name of a scheduler to a crew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from onnx_sipp.errors import UsageError
from onnx_sipp.loading import loading
from onnx_sipp.options import available_threads
from onnx_sipp.threads import borrow_from, borrow_no_more

if TYPE_CHECKING:
    from onnx_sipp.cluster.crew import Crew
    from onnx_sipp.cluster.dask_pool import DaskPool

T = TypeVar("T")

__all__ = ["hired"]


class _Idle:
    """Lends a process the cores of its workers, which idle while it works itself.

    Args:
        cores: of the workers on its machine, as far as they are known; if there are none, all cores
            of the machine are free.
    """

    def __init__(self, cores: Callable[[], int]) -> None:
        self._cores = cores

    @contextmanager
    def lent(self, most: int, threads: int) -> Iterator[int]:
        """See `Lender.lent`."""
        cores = min(self._cores() or available_threads(), available_threads())
        yield max(0, min(most, cores - threads))

    def working(self) -> AbstractContextManager[None]:
        """See `Lender.working`."""
        return nullcontext()

    def leave(self) -> None:
        """See `Lender.leave`."""


@contextmanager
def hired(scheduler: str) -> Iterator[Crew | None]:
    """Hire workers for a while; they are waited for when there is something for them to do.

    Args:
        scheduler: see `Options`.

    Yields:
        The crew; None if there is to be none.

    Raises:
        UsageError: Dask is not installed.
        SippError: the scheduler cannot be reached, has no workers, or they are of no use; when
            they are needed, or at the end.
    """
    if not scheduler:
        yield None
        return
    if find_spec("distributed") is None:
        raise UsageError(
            "--scheduler needs Dask, which is not installed: pip install 'onnx-sipp[cluster]'"
        )
    from onnx_sipp.cluster.forks import get_ready, workers_here  # noqa: PLC0415 - few runs do

    here = workers_here(scheduler)
    if here is not None:
        get_ready()  # while this process loads Dask, too
    from onnx_sipp.cluster.crew import Crew  # noqa: PLC0415

    def cores() -> int:
        """Of the workers on this machine; that of this process alone while they are not known."""
        if here is not None:
            return here
        return pool.result().cores_here if pool.done() else 1

    with _beside(lambda: _pool(scheduler)) as pool:
        borrow_from(_Idle(cores))
        crew = Crew(pool.result)
        try:
            yield crew
        finally:
            borrow_no_more()
            crew.close()


def _pool(scheduler: str) -> AbstractContextManager[DaskPool]:
    with loading():
        from onnx_sipp.cluster.dask_pool import dask_pool  # noqa: PLC0415 - it takes a while

    return dask_pool(scheduler)


@contextmanager
def _beside(enter: Callable[[], AbstractContextManager[T]]) -> Iterator[Future[T]]:
    """Enter a context in a thread beside this one, and leave it there at the end.

    Args:
        enter: gives the context.

    Yields:
        What it gives once it is entered.
    """
    entered: Future[T] = Future()
    over = Event()

    def stay() -> None:
        try:
            with enter() as value:
                entered.set_result(value)
                over.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    with ThreadPoolExecutor(1) as thread:
        left = thread.submit(stay)
        try:
            yield entered
        finally:
            over.set()
    entered.result()  # who never asked is told now
    left.result()
