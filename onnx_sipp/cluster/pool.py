"""What a crew needs of whatever runs its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from onnx_sipp.cluster.site import Payload

__all__ = ["Pool"]


class Pool(Protocol):
    """Runs tasks on workers. A task takes the worker's site, and values or other tasks."""

    def equip(self, payload: Payload) -> None:
        """Give every worker, and those that come later, what it needs to know."""

    def share(self, value: Any) -> Any:
        """Give a value to all workers once; what comes back stands for it in tasks."""

    def forget(self, shared: Any) -> None:
        """Have all workers forget what they share; no task asks for it any more."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have a function called with the site of some worker and these arguments."""

    def has_room(self, running: int) -> bool:
        """Whether there is a worker with nothing to do while so many tasks run."""

    def give_up(self, task: Any) -> None:
        """Have no more time spent on a task; its result is not asked for."""

    def as_done(self, tasks: Sequence[Any]) -> Iterator[int]:
        """The places of tasks, in the order in which they are finished."""

    def result(self, task: Any) -> Any:
        """The result of one task."""
