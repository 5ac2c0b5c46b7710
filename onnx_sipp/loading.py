"""Large libraries load sooner while nobody looks for garbage among what they make."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

__all__ = ["loading"]

_lock = Lock()
# Of those who load at present, whether garbage was collected before.
_before: list[bool] = []


@contextmanager
def loading() -> Iterator[None]:
    """Load modules, which are no garbage; several threads may do so at a time."""
    with _lock:
        _before.append(gc.isenabled() or any(_before))
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            collected = _before.pop()
            if collected and not _before:
                gc.enable()
