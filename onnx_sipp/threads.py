"""Threads: one level of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

__all__ = ["blas_threads", "side_by_side"]

T = TypeVar("T")
R = TypeVar("R")


@cache
def _controller() -> Any:
    return ThreadpoolController()  # looking the libraries up takes a while


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Let matrix products use so many threads."""
    with _controller().limit(limits=count, user_api="blas"):
        yield


def side_by_side(work: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
    """Call a function on every item, several at a time; inside, products have one thread.

    Threads inside of threads wait for each other and slow everything down, badly so on a busy
    machine.

    Args:
        work: what to do; must not depend on the order.
        items: to do it on.
        threads: how many at a time.

    Returns:
        The results in the order of the items.
    """
    items = list(items)
    with blas_threads(1):
        if threads == 1 or len(items) <= 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(min(threads, len(items))) as pool:
            return list(pool.map(work, items))
