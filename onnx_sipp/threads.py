"""Threads: one level of them at a time.

A process that shares its machine with others of a run may get threads that those have no use for;
how work is parted does not depend on that.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeVar

from threadpoolctl import ThreadpoolController

from onnx_sipp.slabs import ranges

__all__ = [
    "Hands",
    "Lender",
    "blas_threads",
    "borrow_from",
    "borrow_no_more",
    "borrows",
    "hands",
    "one_blas_thread",
    "row_parts",
    "side_by_side",
    "turns",
    "working",
]

# Weights in a part of a layer, for work that goes over them several times.
_PART = 1 << 16
# Threads that a process has at most.
_MOST = 1 << 10

T = TypeVar("T")
R = TypeVar("R")


class Lender(Protocol):
    """Has threads that are not in use elsewhere; may end work that is of no use any more."""

    def lent(self, most: int, threads: int) -> AbstractContextManager[int]:
        """Lend some for a while.

        Args:
            most: how many are of use; 0 if none are.
            threads: how many the process has by itself.

        Yields:
            How many there are beyond those.
        """

    def working(self) -> AbstractContextManager[None]:
        """Use the process's own threads for a while; before, others may have them."""

    def leave(self) -> None:
        """Lend and borrow no more."""


_lenders: list[Lender] = []  # one at most
# Of a thread: the team that it works for, if it is one of several that were had together.
_this = threading.local()


def borrow_from(lender: Lender) -> None:
    """Ask for more threads from now on, wherever several are of use.

    Args:
        lender: whom to ask.
    """
    borrow_no_more()
    _lenders.append(lender)


def borrow_no_more() -> None:
    """Ask nobody."""
    while _lenders:
        _lenders.pop().leave()


def borrows() -> bool:
    """Whether there is anybody to ask."""
    return bool(_lenders)


def working() -> AbstractContextManager[None]:
    """See `Lender.working`."""
    return _lenders[0].working() if _lenders else nullcontext()


@cache
def _controller() -> Any:
    return ThreadpoolController()  # looking the libraries up takes a while


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Let matrix products use so many threads."""
    with _controller().limit(limits=count, user_api="blas"):
        yield


def one_blas_thread() -> AbstractContextManager[None]:
    """Let products have one thread, but for a few that are parted over several on purpose.

    The library would take a thread per core for every product, whatever the user allows. It waits
    for them to the last one: on a busy machine small products take a hundred times as long.
    """
    return blas_threads(1)


def turns(items: Sequence[T], threads: int) -> list[Sequence[T]]:
    """Deal out items among threads, in turn.

    For work that gives something to every thread, whose results are put together afterwards. There
    are two parts at least, so that the result is the same where a thread is borrowed.
    """
    count = min(max(2, threads), len(items))
    return [items[first::count] for first in range(count)]


def row_parts(shape: tuple[int, ...]) -> list[slice]:
    """Part the neurons of ``[group, out, fan_in]`` so that what is made of a part stays in cache.

    Args:
        shape: of the weights.
    """
    groups, outs, fan_in = shape
    return list(ranges(outs, groups * fan_in, _PART))


@dataclass(frozen=True)
class Hands:
    """Threads for a while.

    Attributes:
        count: how many there are.
        map: calls a function on every item, as many at a time; gives the results in their order.
    """

    count: int
    map: Callable[[Callable[[T], R], Iterable[T]], Iterable[R]]


@contextmanager
def hands(most: int, threads: int) -> Iterator[Hands]:
    """Have threads, and borrow more; inside, products have one.

    Threads inside of threads wait for each other and slow everything down, badly so on a busy
    machine: such a thread has itself, and those of its like that have run out of work.

    Args:
        most: how many are of use.
        threads: how many there are at most, if no more can be had.
    """
    team: _Team | None = getattr(_this, "team", None)
    if team is not None:
        with team.lent(most - 1) as more, _team_of(1 + more) as own:
            yield own
        return
    with (
        one_blas_thread(),
        _borrowed(max(0, most - threads), threads) as more,
        _team_of(min(threads + more, most)) as own,
    ):
        yield own


@contextmanager
def _team_of(count: int) -> Iterator[Hands]:
    if count <= 1:
        yield Hands(1, map)
        return
    team = _Team(count)
    try:
        yield Hands(count, team.map)
    finally:
        team.stop()


class _Team:
    """So many threads of those that wait for work: to start new ones for every step takes long.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = self._idle = count
        self._lock = threading.Lock()
        self._left: list[deque[int]] = []
        self._runs: list[Future[None]] = []

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """See `Hands.map`."""
        given = list(items)
        found: list[Future[R]] = [Future() for _ in given]
        left = deque(range(len(given)))

        def run() -> None:
            _this.team = self
            with suppress(IndexError):  # nothing is left
                while True:
                    place = left.popleft()
                    try:
                        found[place].set_result(work(given[place]))
                    except BaseException as error:  # whoever asks for it has it
                        found[place].set_exception(error)
            _this.team = None
            self._use(-1)

        count = min(self._count, len(given))
        self._use(count)
        self._left.append(left)
        self._runs += [_waiting().submit(run) for _ in range(count)]
        return (future.result() for future in found)

    @contextmanager
    def lent(self, most: int) -> Iterator[int]:
        """Lend threads that have nothing to do to one that has.

        Args:
            most: how many are of use.

        Yields:
            How many there are.
        """
        with self._lock:
            count = max(0, min(most, self._idle))
            self._idle -= count
        try:
            yield count
        finally:
            self._use(-count)

    def stop(self) -> None:
        """Begin with nothing more, and wait for what has begun."""
        for left in self._left:
            left.clear()
        wait(self._runs)

    def _use(self, count: int) -> None:
        """Begin to use so many threads; fewer than 0 are given back."""
        with self._lock:
            self._idle -= count


@cache
def _waiting() -> ThreadPoolExecutor:
    """Threads without work; there are as many as were ever of use at a time."""
    return ThreadPoolExecutor(_MOST)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_waiting.cache_clear)  # threads are missing in forks


def side_by_side(work: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
    """Call a function on every item, several at a time; see `hands`.

    Args:
        work: what to do; must not depend on the order.
        items: to do it on.
        threads: how many at a time, if no more can be had.

    Returns:
        The results in the order of the items.
    """
    given = list(items)
    found: list[R] = []
    while len(found) < len(given):
        left = given[len(found) :]
        with hands(len(left), threads) as crew:
            # A thread that is alone asks again after every item.
            found += crew.map(work, left if crew.count > 1 or not _may_get_more() else left[:1])
    return found


def _may_get_more() -> bool:
    return borrows() or getattr(_this, "team", None) is not None


def _borrowed(most: int, threads: int) -> AbstractContextManager[int]:
    return _lenders[0].lent(most, threads) if _lenders else nullcontext(0)
