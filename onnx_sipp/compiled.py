"""Numeric kernels, compiled when they are first called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(*, fastmath: bool = False) -> Callable[[F], F]:
    """Compile a function that holds no lock of Python, so that threads run it side by side.

    The machine code is kept on disk where there is a place for it: in the package, else in the
    user's cache folder. A read-only installation without a home folder has neither, and compiles
    anew in every process.

    Args:
        fastmath: whether sums may be reordered and NaN ignored.
    """

    def decorate(function: F) -> F:
        try:
            kernel = numba.njit(nogil=True, fastmath=fastmath, cache=True)(function)
        except RuntimeError:  # numba's way to say that there is no such place
            kernel = numba.njit(nogil=True, fastmath=fastmath)(function)
        return cast("F", kernel)

    return decorate
