"""Runs the command line in a process of its own, with its time and memory watched."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

# As the installed command does it: the current folder is no place for modules (-P).
COMMAND = [sys.executable, "-P", "-m", "onnx_sipp"]
_ROOT = Path(__file__).parents[1]
_TICK = 0.01


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code; negative if a signal ended it.
        out: What it printed.
        err: The same on standard error.
        seconds: How long it ran.
        peak: The most resident memory that it had, in bytes.
        stopped: Which limit made us stop it, if any.
    """

    code: int
    out: str
    err: str
    seconds: float
    peak: int
    stopped: str = ""

    @property
    def message(self) -> str:
        """What it told people of an error."""
        lines = self.err.strip().splitlines()
        told = [line for line in lines if line.startswith(("onnx-sipp:", "Error:"))]
        return told[0] if told else (lines[-1] if lines else "")


def start(
    arguments: Sequence[str | Path],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts the command; what it prints goes to ``out`` and ``err`` beside the folder.

    Args:
        arguments: Of ``onnx-sipp``.
        folder: The current one. Temporary files go to ``tmp`` beside it.
        environment: More variables.
        prepare: Called in the new process before the command.
    """
    temporary = folder.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    variables = {
        **os.environ, "PYTHONPATH": str(_ROOT), "TMPDIR": str(temporary),
        "PYTHONDONTWRITEBYTECODE": "1", **(environment or {}),
    }  # fmt: skip
    out, err = (folder.parent / name for name in ("out", "err"))
    with out.open("wb") as stdout, err.open("wb") as stderr:
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)], cwd=folder, env=variables, stdout=stdout,
            stderr=stderr, stdin=subprocess.DEVNULL,
            preexec_fn=prepare,  # noqa: PLW1509 - no thread of ours runs meanwhile
        )  # fmt: skip


def finish(
    process: subprocess.Popen[bytes],
    folder: Path,
    seconds: float,
    memory: int,
    begun: float | None = None,
) -> Ended:
    """Waits for a command that `start` began, and stops it at a limit.

    Args:
        process: The command.
        folder: As for `start`.
        seconds: The most that it may run.
        memory: The most resident bytes that it may have.
        begun: When it was started, on the performance counter; now if None.
    """
    begun, stopped = begun or time.perf_counter(), ""
    while True:
        found, status, usage = os.wait4(process.pid, os.WNOHANG)
        if found:
            break
        if time.perf_counter() - begun > seconds:
            stopped = f"stopped after {seconds:g} s"
        elif _resident(process.pid) > memory:
            stopped = f"stopped at {memory >> 20} MiB"
        if stopped:
            process.kill()
            _, status, usage = os.wait4(process.pid, 0)
            break
        time.sleep(_TICK)
    process.returncode = os.waitstatus_to_exitcode(status)
    out, err = (
        (folder.parent / name).read_text(encoding="utf-8", errors="replace")
        for name in ("out", "err")
    )
    taken = time.perf_counter() - begun
    return Ended(process.returncode, out, err, taken, usage.ru_maxrss << 10, stopped)


def run(
    arguments: Sequence[str | Path],
    folder: Path,
    *,
    seconds: float = 60,
    memory: int = 3 << 30,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], None] | None = None,
) -> Ended:
    """Runs the command; see `start` and `finish`."""
    begun = time.perf_counter()
    process = start(arguments, folder, environment=environment, prepare=prepare)
    return finish(process, folder, seconds, memory, begun)


def _resident(process: int) -> int:
    with suppress(OSError, IndexError, ValueError):
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


def contents(folder: Path) -> dict[str, str]:
    """What lies in a folder: by name a digest, where a link points, or what else it is.

    Of files above 64 MiB, which are mostly holes here, the size and the ends stand for the rest.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_dir():
            found[name] = "folder"
        elif path.is_file():
            found[name] = _digest(path)
        else:
            found[name] = "device"
    return found


def _digest(path: Path) -> str:
    size, most = path.stat().st_size, 64 << 20
    with path.open("rb") as stream:
        if size <= most:
            return sha256(stream.read()).hexdigest()
        head = stream.read(1 << 20)
        stream.seek(size - (1 << 20))
        return f"{size} {sha256(head + stream.read()).hexdigest()}"
