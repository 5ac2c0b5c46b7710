"""The plainest pool, for tests and measurements: one worker in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_sipp.cluster.site import Payload, Site

__all__ = ["Alone"]


@dataclass(frozen=True)
class _Value:
    value: Any


class Alone:
    """A pool whose tasks are done when they are submitted; see `Pool`."""

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
