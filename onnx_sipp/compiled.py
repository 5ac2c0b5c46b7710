"""Numeric kernels, compiled when they are first called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a function that holds no lock of Python, so that threads run it side by side.

    The machine code is kept on disk where there is a place for it: in the package, else in the
    user's cache folder. A read-only installation without a home folder has neither, and compiles
    anew in every process. Sums may not be reordered: the compiler does that in one way for code
    that it has just made, and in another for code from the disk.
    """
    try:
        kernel = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba's way to say that there is no such place
        kernel = numba.njit(nogil=True)(function)
    return cast("F", kernel)
