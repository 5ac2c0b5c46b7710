"""An odd world: folders that vanish, clocks, locales, closed streams, outputs that are inputs."""

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from watched import finish, run, start

from faults.scene import AGAIN, EXTERNAL, FULL, PLAIN, Kind, Row, Scene, Scenes

_LIMIT, _MEMORY = 60.0, 4 << 30


def vanishing(scenes: Scenes, count: int, seed: int) -> Iterator[Row]:
    """Something is taken away while the run is under way."""
    dice = random.Random(seed + 3)
    with scenes.scene(EXTERNAL) as scene:
        whole = run(EXTERNAL.command, scene.folder).seconds
    for what, take in _TAKEN.items():
        row = Row(f"{what} at a random moment")
        for _ in range(count):
            with scenes.scene(EXTERNAL) as scene:
                outputs = scene.folder / "out"
                outputs.mkdir()
                begun = time.perf_counter()
                command = ["out/o.onnx" if one == "o.onnx" else one for one in EXTERNAL.command]
                process = start(command, scene.folder)
                time.sleep(dice.uniform(0.3, whole))
                take(scene.folder)
                ended = finish(process, scene.folder, _LIMIT, _MEMORY, begun)
                if outputs.exists():
                    for path in outputs.iterdir():
                        path.rename(scene.folder / path.name)
                    outputs.rmdir()
                elif ended.code == 0:
                    scene.new = {}  # it was done before, and what it wrote has vanished, too
                vanished = "input" in what or (ended.code == 0 and not scene.new)
                row.add(scene, ended, vanished="input" in what, killed=vanished and not ended.code)
        yield row


def _drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink(missing_ok=True)


def _cut_short(folder: Path) -> None:
    os.truncate(folder / "m.onnx.data", 1000)


def _clear_temporary(folder: Path) -> None:
    for path in (folder.parent / "tmp").iterdir():
        shutil.rmtree(path, ignore_errors=True)


_TAKEN: dict[str, Callable[[Path], None]] = {
    "the folder of the output vanishes": lambda f: shutil.rmtree(f / "out", ignore_errors=True),
    "the temporary folder is emptied": _clear_temporary,
    "the input vanishes": _drop("m.onnx"),
    "the data of the input vanish": _drop("m.onnx.data"),
    "the data of the input are cut short": _cut_short,
    "the samples of the input vanish": _drop("d.npz"),
}


def odd_settings(scenes: Scenes) -> Iterator[Row]:
    """Locale, clock and encoding; the output is to have the same bytes."""
    for what, environments in _SETTINGS.items():
        row = Row(what)
        for environment in environments:
            with scenes.scene(FULL) as scene:
                row.add(scene, run(FULL.command, scene.folder, environment=environment))
        row.wrong += [] if set(row.states) == {"new"} else ["other bytes"]
        yield row
    row = Row("input files from 1970, and from 2100")
    for moment in (0, 4_102_444_800):
        with scenes.scene(EXTERNAL) as scene:
            for path in scene.folder.iterdir():
                os.utime(path, (moment, moment))
            row.add(scene, run(EXTERNAL.command, scene.folder))
    row.wrong += [] if set(row.states) == {"new"} else ["other bytes"]
    yield row


_SETTINGS = {
    "locale: LC_ALL=C, POSIX, one that is not installed": [
        {"LC_ALL": name, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        for name in ("C", "POSIX", "tr_TR.UTF-8", "xx_XX.nonsense")
    ],
    "output in ASCII, UTF-16 (PYTHONIOENCODING)": [
        {"PYTHONIOENCODING": name} for name in ("ascii", "utf-16")
    ],
    "time zone: 14 hours ahead, 12 behind, nonsense": [
        {"TZ": name} for name in ("Pacific/Kiritimati", "Etc/GMT+12", "::nonsense::")
    ],
    "SOURCE_DATE_EPOCH: 0, the year 2100": [
        {"SOURCE_DATE_EPOCH": value} for value in ("0", "4102444800")
    ],
    "no HOME, COLUMNS=1, TERM=nonsense": [
        {"HOME": "/nonexistent"}, {"COLUMNS": "1"}, {"TERM": "nonsense"},
    ],
}  # fmt: skip


def streams(scenes: Scenes) -> Iterator[Row]:
    """Nobody listens."""
    for what, (kind, prepare) in _STREAMS.items():
        row = Row(what)
        for more in ((), ("--json", "-"), ("-v",)):
            with scenes.scene(kind) as scene:
                command = (*kind.command, *more)
                row.add(scene, run(command, scene.folder, prepare=prepare), silent="error" in what)
        yield row


def _broken(stream: int) -> Callable[[], None]:
    def prepare() -> None:
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, stream)

    return prepare


def _full(stream: int) -> Callable[[], None]:
    return lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), stream) and None


_STREAMS: dict[str, tuple[Kind, Callable[[], None]]] = {
    "standard output is closed": (FULL, lambda: os.close(1)),
    "standard output is a broken pipe": (FULL, _broken(1)),
    "standard output is full (/dev/full)": (FULL, _full(1)),
    "standard error is closed": (FULL, lambda: os.close(2)),
    "standard error is a broken pipe": (FULL, _broken(2)),
}


def inputs_as_outputs(scenes: Scenes) -> Iterator[Row]:
    """The output is an input, spelled in one way or another."""
    row = Row("the output is an input (other spelling, links, its data, the samples)")
    for kind in (PLAIN, EXTERNAL):
        for name, make in _DISGUISES.items():
            with scenes.scene(kind) as scene:
                make(scene)
                scene.again()
                command = [name if one == "o.onnx" else one for one in kind.command]
                ended = run(command, scene.folder)
                scene.target.unlink(missing_ok=True)
                (scene.folder / "sub").unlink(missing_ok=True)
                row.add(scene, ended)
                row.wrong += [] if ended.code == 2 else [f"{name} was not refused"]
    with scenes.scene(AGAIN) as scene:
        command = (*AGAIN.command[:-4], "--report", "m.onnx.html", "--masks", "d.npz")
        row.add(scene, run(command, scene.folder))
    yield row


_DISGUISES: dict[str, Callable[[Scene], object]] = {
    "m.onnx": Scene.again,
    "./m.onnx": Scene.again,
    "../folder/m.onnx": Scene.again,
    "sub/m.onnx": lambda scene: (scene.folder / "sub").symlink_to(scene.folder),
    "o.onnx": lambda scene: scene.target.symlink_to("m.onnx"),
    "d.npz": Scene.again,
}
