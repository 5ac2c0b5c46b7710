"""How tasks, and what they need to know, are handed out to workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from onnx_sipp.cluster.pool import Pool

__all__ = ["in_turn", "largest_first", "told"]


def in_turn(
    jobs: Sequence[Callable[[], Any]], pool: Pool, *, all_at_once: bool
) -> Iterator[tuple[int, Any]]:
    """Submit tasks, and wait for them.

    Args:
        jobs: each submits a task.
        pool: that it is submitted to.
        all_at_once: else each is submitted when there is a worker for it, so that none waits behind
            a long one.

    Yields:
        The places of jobs and their tasks, in the order in which these are finished.
    """
    running: dict[int, Any] = {}
    for place, submit in enumerate(jobs):
        while running and not all_at_once and not pool.has_room(len(running)):
            yield _next_done(running, pool)
        running[place] = submit()
    while running:
        yield _next_done(running, pool)


def _next_done(running: dict[int, Any], pool: Pool) -> tuple[int, Any]:
    """Take the task that is done first from those that run."""
    places = list(running)
    place = places[next(iter(pool.as_done([running[place] for place in places])))]
    return place, running.pop(place)


def largest_first(indices: Iterable[int], capacities: Sequence[int]) -> list[int]:
    """What takes longest is begun first, or it would be waited for at the end."""
    return sorted(indices, key=lambda index: -capacities[index])


@contextmanager
def told(pool: Pool, value: Any) -> Iterator[Any]:
    """Have workers know something for a while.

    Args:
        pool: of the workers.
        value: what they are to know.

    Yields:
        What stands for it in tasks.
    """
    state = pool.share(value)
    try:
        yield state
    finally:
        pool.forget(state)
