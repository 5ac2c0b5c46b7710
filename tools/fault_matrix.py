"""Disturbs runs of the command line in many ways and tells what they left behind.

    python tools/fault_matrix.py [--kills 200] [--seed 0] [--only WORDS]

Each run prunes LeNet300-100 in a folder of its own and in a process of its own. Writes
``docs/results-faults.md``, anew after every fault; with ``--only``, only the groups whose names
contain the words are tried, and their lines replaced. The exit code is 1 if anything is lost.
Needs Linux; as root it can also mount a small disk, and gives up what lifts the rights of files
where they are to bind.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from faults import limits, signals, world
from faults.scene import Row, Scenes

import onnx_sipp

PAGE = Path(__file__).parents[1] / "docs" / "results-faults.md"
TEXT = """\
# When things go wrong

{runs} disturbed runs of `onnx-sipp`, each in a folder of its own; {bad} of the {faults} faults
lost or damaged anything. After each, it is checked that

- every input has the bytes that it had;
- the output is absent, or that of an earlier run, or byte for byte that of a run that nobody
  disturbed (which onnxruntime loads and runs); model and data file belong together; masks and
  report are whole or absent;
- nothing temporary is left, but after kill -9, which leaves no time to tidy up: then what is left
  is called `.onnx-sipp-….tmp` (beside the output) or `onnx-sipp-…` (in the folder for temporary
  files), never as an output, and may be removed; an earlier output that was just being replaced
  is there as `.onnx-sipp-….old`;
- a run that fails says why, in one line that begins with `onnx-sipp:`.

{table}
*Output*: how often it was absent (none), as before (old), or as undisturbed (new).

{notes}
Made by `python tools/fault_matrix.py --kills {kills} --seed {seed}` with onnx-sipp {version}, on
LeNet300-100, by `--method magnitude` on 64 samples. What hostile input does is in
[results-hostile.md](results-hostile.md).
"""
HEADER = ["fault", "runs", "ended", "output", "left", "message (the first)", "lost"]
NOTES = """\
- No clock is turned: the tool that does so (faketime) was not there. Files from 1970 and 2100, and
  odd time zones, stand for it.
- The size of a data file is checked whenever it is read. If it is cut short in the very moment of
  reading, the system ends the run by a signal (SIGBUS), without a message and without an output.
- {disk}
"""


def lines(arguments: argparse.Namespace) -> Iterator[Row]:
    """All faults of the groups whose names contain the words."""
    kills, seed = arguments.kills, arguments.seed
    few = max(1, kills // 20)
    groups: dict[str, Callable[[Scenes], Iterator[Row]]] = {
        "kill": lambda s: signals.kills(s, kills, seed),
        "signal": lambda s: signals.interrupted(s, few, seed),
        "two runs": lambda s: signals.at_once(s, max(1, few // 2)),
        "file size": limits.file_sizes,
        "full disk": limits.full_disk,
        "memory": limits.memory,
        "open files": limits.files,
        "rights": limits.rights,
        "truncated": lambda s: limits.truncated(s, few, seed),
        "vanishing": lambda s: world.vanishing(s, few, seed),
        "settings": world.odd_settings,
        "streams": world.streams,
        "inputs as outputs": world.inputs_as_outputs,
    }
    with tempfile.TemporaryDirectory(prefix="faults-") as home:
        scenes = Scenes(Path(home))
        for name, group in groups.items():
            if arguments.only in name:
                yield from group(scenes)


def cells(row: Row) -> list[str]:
    """A line of the table."""
    counted = [
        ", ".join(f"{what} {count}×" for what, count in sorted(found.items()))
        for found in (row.ends, row.states)
    ]
    message = " ".join(row.message.removeprefix("onnx-sipp: ").split()).replace("|", "\\|")
    message = message if len(message) <= 90 else f"{message[:90]}…"
    lost = "nothing" if not row.wrong else f"**{'; '.join(sorted(set(row.wrong)))}**"
    return [row.fault, str(row.runs), *counted, str(row.left), message, lost]


def main() -> int:
    """Makes the table; 1 if anything is lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="runs that are ended by kill -9")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", default="", help="words in the name of the group")
    arguments = parser.parse_args()
    done = _lines_of_page() if arguments.only else {}
    for row in lines(arguments):
        line = cells(row)
        print(" | ".join(line), flush=True)
        done[row.fault] = line
        _write(done, arguments)
    return int(any(line[-1] != "nothing" for line in done.values()))


def _lines_of_page() -> dict[str, list[str]]:
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    found = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {line[0]: line for line in found[2:]}


def _write(lines: dict[str, list[str]], arguments: argparse.Namespace) -> None:
    table = [HEADER, ["---"] * len(HEADER), *lines.values()]
    mounted = any("tmpfs" in fault for fault in lines)
    disk = (
        "The full disk is a file system of some kilobytes in memory (tmpfs)."
        if mounted
        else "No small disk could be mounted here: a limit on the size of files stands for it."
    )
    root = "as root without the capabilities that lift them (CAP_DAC_*)"
    user = root if os.getuid() == 0 else "as an ordinary user"
    text = TEXT.format(
        runs=sum(int(line[1]) for line in lines.values()), faults=len(lines),
        bad=sum(line[-1] != "nothing" for line in lines.values()),
        table="".join(f"| {' | '.join(line)} |\n" for line in table),
        notes=NOTES.format(disk=f"{disk} Rights were tried {user}."),
        kills=arguments.kills, seed=arguments.seed, version=onnx_sipp.__version__,
    )  # fmt: skip
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
