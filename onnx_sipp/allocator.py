"""What the allocator does with memory that was freed; nothing, where it is not that of glibc."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

__all__ = [
    "freed_memory_given_back",
    "give_back_freed_memory",
    "keep_freed_memory",
    "release_memory",
]

# What was freed and is less than this is kept: it is asked for again at once, and getting memory
# from the system takes long.
_KEPT = 64 << 20
# Parameters of mallopt: from which size on memory is given back at once. Values while a run works
# on large arrays, and those that glibc comes to by itself once some were freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_WORKING = {_TRIM_THRESHOLD: 1 << 30, _MMAP_THRESHOLD: 1 << 30}
_USUAL = {_TRIM_THRESHOLD: 64 << 20, _MMAP_THRESHOLD: 32 << 20}
# What users have chosen for themselves; glibc reads it when the process starts.
_NAMES = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"}
_CHOSEN = bool(_NAMES & os.environ.keys())
# While freed memory is kept: whether thresholds are raised for it.
_keeping: list[bool] = []


def keep_freed_memory() -> None:
    """Keep what is freed, until it is given back; thresholds that users have chosen stay.

    To get large arrays from the system takes as long as to work on them.
    """
    _keeping.append(not _CHOSEN)
    if not _CHOSEN:
        _set_thresholds(_WORKING)


def give_back_freed_memory() -> None:
    """Give back what was kept, if it was, and keep no more."""
    if not _keeping:
        return
    raised = any(_keeping)
    _keeping.clear()
    if raised:
        _set_thresholds(_USUAL)
    release_memory(_KEPT)


@contextmanager
def freed_memory_given_back() -> Iterator[None]:
    """At the end, give back what was kept meanwhile."""
    try:
        yield
    finally:
        give_back_freed_memory()


def release_memory(freed: int) -> None:
    """Give what was freed back to the system, unless it is kept for what comes next.

    Args:
        freed: about how many bytes; a few are not worth it.
    """
    if not _keeping and freed >= _KEPT and (trim := _of_glibc("malloc_trim")) is not None:
        trim(0)


def _set_thresholds(values: Mapping[int, int]) -> None:
    if (mallopt := _of_glibc("mallopt")) is not None:
        for threshold, value in values.items():
            if not mallopt(threshold, value):  # older ones refuse what is large
                mallopt(threshold, _USUAL[threshold])


@cache
def _of_glibc(name: str) -> Any:
    with suppress(OSError, AttributeError):  # another allocator
        return getattr(ctypes.CDLL(None), name)
    return None
