"""Runs that get too little: disk, memory, files, rights."""

import ctypes
import os
import random
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from watched import Ended, run

from faults.scene import AGAIN, EXTERNAL, FULL, PLAIN, Kind, Row, Scenes

# From linux/prctl.h and linux/capability.h: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH.
_PR_CAPBSET_DROP, _LIFTING_RIGHTS = 24, (1, 2)


def _limited(kind: int, value: int) -> Callable[[], None]:
    def prepare() -> None:
        resource.setrlimit(kind, (value, value))

    return prepare


def file_sizes(scenes: Scenes) -> Iterator[Row]:
    """No file may grow beyond a size: writing fails as on a full disk, with another reason."""
    row = Row("no file may have more than 0 … 400 KB (RLIMIT_FSIZE)")
    for kind in (FULL, EXTERNAL, AGAIN):
        for size in (0, 1, 4096, 50_000, 150_000, 202_000, 400_000):
            with scenes.scene(kind) as scene:
                ended = run(
                    kind.command, scene.folder, prepare=_limited(resource.RLIMIT_FSIZE, size)
                )
                # What it says goes to files, too, which may have no more either.
                row.add(scene, ended, silent=size < 4096)
    yield row


def full_disk(scenes: Scenes) -> Iterator[Row]:
    """A disk of a few kilobytes, where a file system in memory may be mounted."""
    for what, inside in (("of the output", True), ("for temporary files", False)):
        row = Row(f"the disk {what} is full (tmpfs)")
        for kind in (FULL, EXTERNAL):
            for kilobytes in (4, 100, 208, 300):
                with scenes.scene(kind) as scene, _small(kilobytes) as disk:
                    if disk is None:
                        return
                    ended = _on_disk(kind, scene.folder, disk, inside=inside)
                    for path in disk.iterdir() if inside else ():
                        shutil.copy(path, scene.folder)
                    row.add(scene, ended)
        yield row


def _on_disk(kind: Kind, folder: Path, disk: Path, *, inside: bool) -> Ended:
    if not inside:
        return run(kind.command, folder, environment={"TMPDIR": str(disk)})
    command = [str(disk / "o.onnx") if one == "o.onnx" else one for one in kind.command]
    return run(command, folder)


class _small:  # noqa: N801
    """A file system of some kilobytes; None where none may be mounted."""

    def __init__(self, kilobytes: int) -> None:
        self._size, self._place = kilobytes, Path(tempfile.mkdtemp())

    def __enter__(self) -> Path | None:
        options = f"size={self._size}k"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self._place],
            capture_output=True, check=False,
        )  # fmt: skip
        self._mounted = done.returncode == 0
        return self._place if self._mounted else None

    def __exit__(self, *_: object) -> None:
        if self._mounted:
            subprocess.run(["umount", self._place], check=True)
        self._place.rmdir()


def memory(scenes: Scenes) -> Iterator[Row]:
    """Less memory than it takes."""
    for limit, name in ((resource.RLIMIT_AS, "RLIMIT_AS"), (resource.RLIMIT_DATA, "RLIMIT_DATA")):
        row = Row(f"at most 60 … 1,500 MiB of memory ({name})")
        for kind in (FULL, EXTERNAL):
            for size in (60, 100, 150, 200, 300, 400, 500, 700, 1000, 1500):
                with scenes.scene(kind) as scene:
                    prepare = _limited(limit, size << 20)
                    row.add(scene, run(kind.command, scene.folder, prepare=prepare))
        yield row


def files(scenes: Scenes) -> Iterator[Row]:
    """Few open files."""
    row = Row("at most 8 … 64 open files (RLIMIT_NOFILE)")
    for count in (8, 12, 16, 24, 64):
        with scenes.scene(AGAIN) as scene:
            prepare = _limited(resource.RLIMIT_NOFILE, count)
            row.add(scene, run(AGAIN.command, scene.folder, prepare=prepare))
    yield row


def rights(scenes: Scenes) -> Iterator[Row]:
    """Folders that may not be written, and files that may not be read."""
    for what in ("the folder of the output may not be written", "the model may not be read",
                 "the samples may not be read", "an old output may not be written"):  # fmt: skip
        row = Row(what)
        for kind in (PLAIN, EXTERNAL):
            with scenes.scene(kind) as scene:
                shutil.copy(scene.folder / "m.onnx", scene.target)
                scene.old = {"o.onnx": scene.target.read_bytes()}
                if "old output" not in what:
                    scene.target.unlink()
                place = {
                    "the f": scene.folder, "the m": scene.folder / "m.onnx",
                    "the s": scene.folder / "d.npz", "an ol": scene.target,
                }[what[:5]]  # fmt: skip
                place.chmod(0o555 if place.is_dir() else 0o444 if place == scene.target else 0)
                row.add(scene, run(kind.command, scene.folder, prepare=_bound_by_rights))
        yield row


def _bound_by_rights() -> None:
    """Rights bind everybody but root, unless it gives up what lifts them."""
    if os.getuid() == 0:
        libc = ctypes.CDLL(None)
        for capability in _LIFTING_RIGHTS:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def truncated(scenes: Scenes, count: int, seed: int) -> Iterator[Row]:
    """Files that end too early."""
    dice = random.Random(seed + 2)
    for name in ("m.onnx", "m.onnx.data", "d.npz"):
        row = Row(f"{name} ends too early")
        for _ in range(count):
            with scenes.scene(EXTERNAL) as scene:
                path = scene.folder / name
                os.truncate(path, dice.randrange(path.stat().st_size))
                scene.again()
                ended = run(EXTERNAL.command, scene.folder)
                row.add(scene, ended)
                row.wrong += [] if ended.code else ["was not refused"]
        yield row
