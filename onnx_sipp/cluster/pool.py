"""What a crew needs of whatever runs its tasks; and the plainest way, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from onnx_sipp.cluster.site import Payload, Site

__all__ = ["Alone", "Pool"]


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


@dataclass(frozen=True)
class _Value:
    value: Any


class Alone:
    """A pool of one worker in this process."""

    def __init__(self) -> None:
        self._site: Site | None = None

    def equip(self, payload: Payload) -> None:
        """See `Pool.equip`."""
        self._site = Site(payload)

    def share(self, value: Any) -> _Value:
        """See `Pool.share`."""
        return _Value(value)

    def forget(self, shared: _Value) -> None:
        """See `Pool.forget`; it goes with the last who holds it."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> _Value:
        """See `Pool.submit`."""
        assert self._site is not None
        given = [a.value if isinstance(a, _Value) else a for a in arguments]
        return _Value(function(self._site, *given))

    def has_room(self, running: int) -> bool:
        """See `Pool.has_room`."""
        return running < 1

    def give_up(self, task: _Value) -> None:
        """See `Pool.give_up`; it is done already."""

    def as_done(self, tasks: Sequence[_Value]) -> Iterator[int]:
        """See `Pool.as_done`."""
        return iter(range(len(tasks)))

    def result(self, task: _Value) -> Any:
        """See `Pool.result`."""
        return task.value
