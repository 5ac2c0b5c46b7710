"""Threads: one level of them at a time.

A process that shares its machine with others of a run may get threads that those have no use for;
how work is parted does not depend on that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeVar

from threadpoolctl import ThreadpoolController

from onnx_sipp.store import ranges

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
# Of a thread: whether it is one of several that were had together.
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
    machine: such a thread has none but itself.

    Args:
        most: how many are of use.
        threads: how many there are at most, if no more can be had.
    """
    if getattr(_this, "is_hand", False):
        yield Hands(1, map)
        return
    with one_blas_thread(), _borrowed(max(0, most - threads), threads) as more:
        count = min(threads + more, most)
        if count <= 1:
            yield Hands(1, map)
            return
        with ThreadPoolExecutor(count, initializer=_be_a_hand) as pool:
            yield Hands(count, pool.map)


def _be_a_hand() -> None:
    _this.is_hand = True


def side_by_side(work: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
    """Call a function on every item, several at a time; see `hands`.

    Args:
        work: what to do; must not depend on the order.
        items: to do it on.
        threads: how many at a time, if no more can be had.

    Returns:
        The results in the order of the items.
    """
    items = list(items)
    with hands(len(items), threads) as crew:
        return list(crew.map(work, items))


def _borrowed(most: int, threads: int) -> AbstractContextManager[int]:
    return _lenders[0].lent(most, threads) if _lenders else nullcontext(0)
