"""Write files whole or not at all, and read those of strangers."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from onnx_sipp.errors import SippError, UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Piece", "read_plain", "refuse_full", "refuse_place", "write_together"]

Piece = tuple[Path, Callable[[BinaryIO], object]]


def read_plain(path: Path, most: int) -> bytes:
    """The bytes of a file that may be anything: a device that never ends, a pipe that nobody feeds.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        SippError: it is no regular file, or has more.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | _WITHOUT_WAITING)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SippError(f"{str(path)!r} is no regular file; give a copy that is one")
        if status.st_size > most:
            raise SippError(
                f"{str(path)!r} is too large: it has {status.st_size:,} bytes, and at most "
                f"{most:,} can be read"
            )
        return stream.read()


# Opening a pipe would wait for somebody to write; Windows reads text without the other.
_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def refuse_place(place: Path) -> None:
    """Check, before any work is done, that a file may be written at a place.

    Raises:
        UsageError: it is a folder or a device, or in a missing or read-only folder.
    """
    try:
        if place.is_dir():
            raise UsageError(f"the output {str(place)!r} is a folder; name a file in it")
        if place.exists() and not place.is_file():
            raise UsageError(f"the output {str(place)!r} is no regular file; write elsewhere")
        if not place.parent.is_dir():
            raise UsageError(
                f"the folder {str(place.parent)!r} does not exist; create it or write elsewhere"
            )
    except OSError as error:  # such as a name that is too long
        raise UsageError(f"cannot write {str(place)!r}: {error.strerror}") from error
    if not os.access(place.parent, os.W_OK):
        raise UsageError(f"the folder {str(place.parent)!r} is not writable; write elsewhere")


def refuse_full(folder: Path, size: int) -> None:
    """Check, before any work is done, that so many bytes have room in a folder.

    Raises:
        SippError: they have not.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise SippError(
            f"the output needs {size:,} bytes, but the disk of {str(folder)!r} has {free:,} left; "
            "make room, or write elsewhere"
        )


def write_together(pieces: Sequence[Piece]) -> None:
    """Write files that belong together: each beside its place, renamed when all are complete.

    A link at a place is replaced; what it points to stays. Of two processes that write to the same
    places at once, the later one's files stay, all of them.

    Args:
        pieces: places, each with a function that writes to the stream it is given. The last one
            refers to the others.

    Raises:
        SippError: writing failed; nothing is left behind.
    """
    beside: list[Path] = []
    place = Path()
    try:
        for place, write in pieces:
            beside.append(_temporary(place.parent))
            with beside[-1].open("wb") as out:
                write(out)
                out.flush()
                os.fsync(out.fileno())
        with _alone(pieces[-1][0].parent):
            _put(beside, [place for place, _ in pieces])
    except OSError as error:
        reason = error.strerror or error
        raise SippError(f"cannot write {str(place)!r}: {reason}; nothing was written") from error
    finally:
        for left in beside:
            with suppress(OSError):
                left.unlink(missing_ok=True)


def _put(files: Sequence[Path], places: Sequence[Path]) -> None:
    """Rename files to their places; if that fails, what was there before is there again.

    Of several files, old ones are moved away first, the one that refers to the others before them:
    whenever the process dies, it is not found with files that it does not refer to.
    """
    moved: list[tuple[Path, Path]] = []
    made: list[Path] = []
    try:
        for place in reversed(places) if len(places) > 1 else ():
            if place.exists() or place.is_symlink():
                aside = place.with_name(f".onnx-sipp-{secrets.token_hex(6)}.old")
                place.replace(aside)
                moved.append((aside, place))
        for file, place in zip(files, places, strict=True):
            fresh = not place.exists()
            file.replace(place)
            if fresh:
                made.append(place)
    except BaseException:
        for place in reversed(made):
            place.unlink(missing_ok=True)
        for aside, place in reversed(moved):
            aside.rename(place)
        raise
    for aside, _ in moved:
        with suppress(OSError):
            aside.unlink()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process of ours renames files in a folder; none is left behind for it."""
    with ExitStack() as stack:
        with suppress(OSError):  # some file systems know no locks, some folders may not be read
            if fcntl is not None:
                descriptor = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _temporary(folder: Path) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=".onnx-sipp-", suffix=".tmp", dir=folder)
    os.close(descriptor)
    umask = os.umask(0)
    os.umask(umask)
    path = Path(name)
    path.chmod(0o666 & ~umask)  # as an ordinary new file, not mkstemp's 0600
    return path
