"""From the name of a scheduler to a crew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

from onnx_sipp.errors import UsageError
from onnx_sipp.options import available_threads
from onnx_sipp.threads import borrow_from, borrow_no_more

if TYPE_CHECKING:
    from onnx_sipp.cluster.crew import Crew

__all__ = ["hired"]


class _Idle:
    """Lends a process the cores of its workers, which idle while it works itself.

    Args:
        cores: of the workers on its machine; if there are none, all cores of the machine are free.
    """

    def __init__(self, cores: int) -> None:
        self._cores = min(cores or available_threads(), available_threads())

    @contextmanager
    def lent(self, most: int, threads: int) -> Iterator[int]:
        """See `Lender.lent`."""
        yield max(0, min(most, self._cores - threads))

    def working(self) -> AbstractContextManager[None]:
        """See `Lender.working`."""
        return nullcontext()

    def leave(self) -> None:
        """See `Lender.leave`."""


@contextmanager
def hired(scheduler: str) -> Iterator[Crew | None]:
    """Hire workers for a while.

    Args:
        scheduler: see `Options`.

    Yields:
        The crew; None if there is to be none.

    Raises:
        UsageError: Dask is not installed.
        SippError: the scheduler cannot be reached, has no workers, or they are of no use.
    """
    if not scheduler:
        yield None
        return
    if find_spec("distributed") is None:
        raise UsageError(
            "--scheduler needs Dask, which is not installed: pip install 'onnx-sipp[cluster]'"
        )
    if scheduler.startswith("local:"):
        from onnx_sipp.cluster.forks import get_ready  # noqa: PLC0415 - few runs have one

        get_ready()  # while this process loads Dask, too
    from onnx_sipp.cluster.crew import Crew  # noqa: PLC0415
    from onnx_sipp.cluster.dask_pool import dask_pool  # noqa: PLC0415

    with dask_pool(scheduler) as pool:
        borrow_from(_Idle(pool.cores_here))
        try:
            yield Crew(pool)
        finally:
            borrow_no_more()
