"""Workers of one machine that have nothing to do lend their core to those that have.

Every worker has a seat: two files, the one locked as long as the worker lives, the other while its
core is in use, by itself or by another one. The system takes back the locks of processes that die.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from onnx_sipp.options import available_threads

if sys.platform != "win32":
    import fcntl

__all__ = ["Seat"]

_TAKEN, _CORE = ".taken", ".core"


class Seat:
    """Place of a worker among those of a scheduler that share a machine.

    Args:
        folder: of the worker; those of the others are beside it.
        scheduler: a name for it.
    """

    def __init__(self, folder: Path, scheduler: str) -> None:
        self._folder, self._scheduler = folder, scheduler
        os.close(_opened(self._core(folder), os.O_CREAT))
        self._taken = _opened(folder / f"{scheduler}{_TAKEN}", os.O_CREAT)
        fcntl.flock(self._taken, fcntl.LOCK_EX)

    def leave(self) -> None:
        """Let others have it no more."""
        os.close(self._taken)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Use the own core; as long as it is lent, its borrower is waited for."""
        descriptor = _opened(self._core(self._folder))
        try:
            # Several threads of this process do not shut each other out.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def lent(self, most: int, threads: int) -> Iterator[int]:
        """See `Lender.lent`; each of the others has as many threads as this one."""
        with ExitStack() as stack:
            others = self._others()
            free = 0
            for folder in others:
                core = _locked(self._core(folder))
                if core is not None:
                    stack.callback(os.close, core)
                    free += 1
            busy = 1 + len(others) - free
            yield max(0, min(most, free * threads, available_threads() - busy * threads))

    def _core(self, folder: Path) -> Path:
        return folder / f"{self._scheduler}{_CORE}"

    def _others(self) -> list[Path]:
        """Folders of the other workers that live."""
        folders = []
        for path in sorted(self._folder.parent.glob(f"*/{self._scheduler}{_TAKEN}")):
            if path.parent == self._folder:
                continue
            try:
                descriptor = _locked(path)
            except FileNotFoundError:  # it is just about to end
                continue
            if descriptor is None:
                folders.append(path.parent)
            else:
                os.close(descriptor)
        return folders


def _opened(path: Path, flags: int = 0) -> int:
    return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)


def _locked(path: Path) -> int | None:
    """A descriptor of a file that is locked with it, None where someone else has locked it."""
    descriptor = _opened(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
