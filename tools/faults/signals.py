"""Runs that are ended from outside."""

import os
import random
import signal
import time
from collections.abc import Iterator

from watched import finish, run, start

from faults.scene import AGAIN, EXTERNAL, FULL, KINDS, Kind, Row, Scenes

_LIMIT, _MEMORY = 60.0, 4 << 30


def kills(scenes: Scenes, count: int, seed: int) -> Iterator[Row]:
    """Ends runs by SIGKILL at random moments, half of them while files are written.

    Args:
        scenes: To run in.
        count: Of runs.
        seed: Of the moments.
    """
    dice = random.Random(seed)
    for number, kind in enumerate(KINDS):
        share = count // len(KINDS) + (number < count % len(KINDS))
        yield _killed(scenes, kind, share // 2, dice, writing=False)
        yield _killed(scenes, kind, share - share // 2, dice, writing=True)


def _killed(scenes: Scenes, kind: Kind, count: int, dice: random.Random, *, writing: bool) -> Row:
    when = "while it writes" if writing else "at a random moment"
    row = Row(f"kill -9 {when}: {kind.name}")
    with scenes.scene(kind) as scene:
        whole = run(kind.command, scene.folder).seconds
    for _ in range(count):
        with scenes.scene(kind) as scene:
            begun = time.perf_counter()
            process = start(kind.command, scene.folder)
            if writing:
                _wait_for_writing(scene.folder, begun + whole * 2)
                time.sleep(dice.uniform(0, 0.01))
            else:
                time.sleep(dice.uniform(0, whole))
            os.kill(process.pid, signal.SIGKILL)  # which may have ended: it is not waited for
            row.add(scene, finish(process, scene.folder, _LIMIT, _MEMORY, begun), killed=True)
    return row


def _wait_for_writing(folder, until: float) -> None:  # noqa: ANN001
    while time.perf_counter() < until and not any(folder.glob(".onnx-sipp-*")):
        time.sleep(0.0005)


def interrupted(scenes: Scenes, count: int, seed: int) -> Iterator[Row]:
    """The same by signals that a run may answer: as a container, CI or a person ends it."""
    dice = random.Random(seed + 1)
    with scenes.scene(FULL) as scene:
        # Until then Python itself starts and reads the command; what ends it there is none of ours.
        started = 2.5 * run(("--version",), scene.folder).seconds
        whole = run(FULL.command, scene.folder).seconds
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C (SIGINT)")):
        row = Row(f"{name} at a random moment")
        for index in range(count):
            kind = (FULL, EXTERNAL, AGAIN)[index % 3]
            with scenes.scene(kind) as scene:
                begun = time.perf_counter()
                process = start(kind.command, scene.folder)
                time.sleep(dice.uniform(started, max(started, whole)))
                os.kill(process.pid, number)
                row.add(scene, finish(process, scene.folder, _LIMIT, _MEMORY, begun))
        yield row


def at_once(scenes: Scenes, count: int) -> Iterator[Row]:
    """Two runs write one output."""
    for more, what in (((), "the same command"), (("--sparsity", "0.2"), "other options")):
        row = Row(f"two runs on one output at once: {what}")
        for _ in range(count):
            with scenes.scene(AGAIN) as scene:
                begun = time.perf_counter()
                first = start(AGAIN.command, scene.folder)
                second = start((*AGAIN.command, *more), scene.folder)
                ended = finish(first, scene.folder, _LIMIT, _MEMORY, begun)
                other = finish(second, scene.folder, _LIMIT, _MEMORY, begun)
                worse = max(ended, other, key=lambda one: abs(one.code))
                state = scene.state()
                row.add(scene, worse, killed=state == "old")
        yield row
