"""Keep a run from taking the whole machine, whatever the model claims."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from onnx_sipp.errors import SippError

__all__ = ["bounded_memory", "refuse_little_memory"]

# Reserved by threads for each core, and never touched.
_PER_CORE = 64 << 20
# Libraries that get less crash or hang instead of telling.
_LEAST_LIMIT = 1 << 30
_LEAST_DATA, _LEAST_ADDRESSES = 320 << 20, 768 << 20
_CGROUP = Path("/sys/fs/cgroup")


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Have the system refuse memory beyond what there is, which ends in a message.

    Without it, the system grants what it does not have, and ends some process when that is used.
    Nothing happens where there is less already, or where it cannot be told (only Linux tells).
    """
    room = _room()
    if room is None:
        yield
        return
    import resource  # noqa: PLC0415 - absent in Windows, which does not come here

    limit = max(room, _LEAST_LIMIT) + _PER_CORE * (os.cpu_count() or 1)
    before = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY or soft > limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def refuse_little_memory() -> None:
    """Check that the process may have the memory that the libraries need to load.

    Raises:
        SippError: it may not (``ulimit -v``, ``ulimit -d``).
    """
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415

    for kind, least, option in (
        (resource.RLIMIT_AS, _LEAST_ADDRESSES, "-v"),
        (resource.RLIMIT_DATA, _LEAST_DATA, "-d"),
    ):
        limit = resource.getrlimit(kind)[0]
        needed = least + _PER_CORE * (os.cpu_count() or 1)
        if limit != resource.RLIM_INFINITY and limit < needed:
            raise SippError(
                f"at least {needed >> 20} MiB of memory are needed, but only {limit >> 20} may be "
                f"had; raise the limit (ulimit {option})"
            )


def _room() -> int | None:
    """Bytes that this process has or can have yet; None if unknown."""
    free, own = _machine(), _kibibytes(Path("/proc/self/status"), "VmData")
    if free is None or own is None:
        return None
    limit = _number(_CGROUP / "memory.max")  # what files take of it gives way
    return own + (free if limit is None else min(free, limit))


def _machine() -> int | None:
    place = Path("/proc/meminfo")
    free, swap = _kibibytes(place, "MemAvailable"), _kibibytes(place, "SwapFree")
    return None if free is None else free + (swap or 0)


def _kibibytes(path: Path, name: str) -> int | None:
    """An entry of a file of the system, in bytes."""
    with suppress(OSError, ValueError, IndexError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
    return None


def _number(path: Path) -> int | None:
    with suppress(OSError, ValueError):  # "max" where there is no limit
        return int(path.read_text(encoding="ascii"))
    return None
