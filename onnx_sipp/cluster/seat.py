"""Workers of one machine that have nothing to do lend their core to those that have.

Every worker has a seat: two files, the one locked as long as the worker lives, the other while its
core is in use, by itself or by another one. The system takes back the locks of processes that die.
Whoever finds a lock or a file missing does without: all that is lost is time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from onnx_sipp.options import available_threads

if sys.platform != "win32":
    import fcntl

    _ALONE, _TOGETHER = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_SH | fcntl.LOCK_NB

__all__ = ["Seat"]

_TAKEN, _CORE = ".taken", ".core"
# Seconds that a worker waits for its core at most, and between two looks.
_PATIENCE, _PAUSE = 10.0, 0.002


class Seat:
    """Place of a worker of one thread among those of a scheduler that share a machine.

    Args:
        folder: of the worker; those of the others are beside it.
        name: of the scheduler and the machine.

    Raises:
        OSError: files cannot be made or locked there.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        os.close(_locked(self._core(folder), _TOGETHER, os.O_CREAT))
        # Others may look at it just now, so this one waits.
        self._taken = _locked(folder / f"{name}{_TAKEN}", fcntl.LOCK_EX, os.O_CREAT)

    def leave(self) -> None:
        """Be counted no more."""
        os.close(self._taken)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Use the own core; while it is lent, wait, but not for ever."""
        core = self._own_core()
        try:
            yield
        finally:
            if core is not None:
                os.close(core)

    def _own_core(self) -> int | None:
        """The own core, locked; None where that takes too long, or its file is gone."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            try:
                return _locked(self._core(self._folder), _TOGETHER)
            except BlockingIOError:
                time.sleep(_PAUSE)
            except OSError:
                break
        return None

    @contextmanager
    def lent(self, most: int, threads: int) -> Iterator[int]:
        """See `Lender.lent`; each of the others has as many threads as this one."""
        with ExitStack() as stack:
            others = self._others()
            free = []
            for folder in others:
                with suppress(OSError):  # it is in use, or just about to end
                    free.append(_locked(self._core(folder), _ALONE))
            busy = 1 + len(others) - len(free)
            more = min(most, len(free) * threads, available_threads() - busy * threads)
            for number, core in enumerate(free):
                if number * threads < more:
                    stack.callback(os.close, core)
                else:
                    os.close(core)
            yield max(0, more)

    def _core(self, folder: Path) -> Path:
        return folder / f"{self._name}{_CORE}"

    def _others(self) -> list[Path]:
        """Folders of the other workers that live."""
        folders = []
        for path in sorted(self._folder.parent.glob(f"*/{self._name}{_TAKEN}")):
            if path.parent == self._folder:
                continue
            try:
                os.close(_locked(path, _TOGETHER))
            except BlockingIOError:
                folders.append(path.parent)
            except OSError:
                continue  # it is just about to end
        return folders


def _locked(path: Path, lock: int, flags: int = 0) -> int:
    """A descriptor of a file that is locked with it.

    Raises:
        BlockingIOError: someone else has locked it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(descriptor, lock)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
