"""Runs the command line on files that strangers might send and tells what it made of them.

    python tools/hostile_inputs.py [--only WORDS] [--seconds 60] [--memory 3072]

Every case is made in a folder of its own, and the command runs there in a process of its own,
which is stopped beyond a limit of time or resident memory. Writes ``docs/results-hostile.md``;
with ``--only`` it prints the lines of the cases whose names contain the words. The exit code is 1
if a case is not passed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from hostile import external, graphs, samples, texts
from hostile.case import SECRET, Case
from watched import Ended, contents, run

import onnx_sipp

PAGE = Path(__file__).parents[1] / "docs" / "results-hostile.md"
CASES = [*external.CASES, *graphs.CASES, *samples.CASES, *texts.CASES]
TEXT = """\
# Files from strangers

What `onnx-sipp` makes of hostile input: {passed} of {count} runs ended as they should. Each runs
in a process of its own, and is stopped after {seconds:g} s or at {memory} MiB of resident memory.

- *exit*: 1 it could not be done, 2 wrong usage, 0 done (the input does no harm);
- *message*: the first line of it, shortened;
- *kept*: whether all files that were there (in the folder, in the folder above, in the folder for
  temporary files) are as they were, and no other is there but outputs of runs that ended well.

What is checked, and what is not: [security.md](security.md).

{table}
Made by `python tools/hostile_inputs.py` with onnx-sipp {version}, on a machine with {ram} GiB.
"""
HEADER = ["case", "command", "exit", "message", "seconds", "peak MiB", "kept"]
_WIDTH = 110
# onnxruntime makes this when it is imported, whatever is done with it.
_OTHERS = "tmp/.ses"


def verdict(case: Case, ended: Ended) -> str:
    """What is wrong with the end of a run, nothing if nothing."""
    told = ended.message.startswith(("onnx-sipp:", "Error:"))
    wrongs = {
        ended.stopped: bool(ended.stopped),
        "a traceback": "Traceback" in ended.err,
        f"ended by signal {-ended.code}": ended.code < 0,
        "no message": ended.code != 0 and not told,
        f"exit code {ended.code}": ended.code > 2,
        "was not refused": not case.either and case.refused and ended.code == 0,
        "was refused": not case.either and not case.refused and ended.code != 0,
    }
    return next((wrong for wrong, holds in wrongs.items() if holds), "")


def tried(case: Case, seconds: float, memory: int) -> list[list[str]]:
    """Runs the commands of a case; a line of the table each, whose last entry tells what is wrong.

    Args:
        case: What to try.
        seconds: Limit of each run.
        memory: The same, in bytes.
    """
    lines = []
    with tempfile.TemporaryDirectory(prefix="hostile-") as place:
        home = Path(place)
        folder = home / "folder"
        folder.mkdir()
        (home / "tmp").mkdir()
        (home / "secret").write_bytes(SECRET)
        case.make(folder)
        before = contents(home)
        for command in case.commands:
            ended = run(command, folder, seconds=seconds, memory=memory)
            wrong = verdict(case, ended)
            changed = _changes(case, before, contents(home), done=ended.code == 0)
            if case.check is not None and not wrong:
                wrong = case.check(folder, ended.out, ended.err)
            kind = command[0] if command[0] in _KINDS else "prune"
            lines.append([
                case.name, kind, str(ended.code), _short(ended.message if ended.code else ""),
                f"{ended.seconds:.1f}", f"{ended.peak >> 20}", changed or "yes",
                wrong or changed,
            ])  # fmt: skip
            before = contents(home)
    return lines


_KINDS = ("inspect", "compare", "sweep", "pack", "unpack")


def _changes(case: Case, before: dict[str, str], after: dict[str, str], *, done: bool) -> str:
    mine = {"out", "err", _OTHERS, *([f"folder/{name}" for name in case.new] if done else [])}
    if (folder_log := "folder/log") in after and folder_log not in before:
        mine.add(folder_log)  # a log tells of failures, too
    changed = [
        name for name in sorted({*before, *after} - mine) if before.get(name) != after.get(name)
    ]
    return f"no: {', '.join(changed)[:80]}" if changed else ""


def _short(message: str) -> str:
    text = message.removeprefix("onnx-sipp: ").replace("|", "\\|").replace("<", "&lt;")
    text = " ".join(text.split())
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"


def table(lines: list[list[str]]) -> str:
    """The lines as Markdown."""
    rows = [HEADER, ["---"] * len(HEADER), *(line[:-1] for line in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> int:
    """Tries all cases; 1 if one is not passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="words in the name of the case")
    parser.add_argument("--seconds", type=float, default=60, help="limit of a run")
    parser.add_argument("--memory", type=int, default=3072, help="the same in MiB")
    arguments = parser.parse_args()
    lines = []
    for case in CASES:
        if arguments.only in case.name:
            for line in tried(case, arguments.seconds, arguments.memory << 20):
                print(f"{'FAIL: ' + line[-1] if line[-1] else 'ok'} | {' | '.join(line[:-1])}")
                sys.stdout.flush()
                lines.append(line)
    failed = [line for line in lines if line[-1]]
    print(f"{len(lines) - len(failed)} of {len(lines)} runs passed")
    if not arguments.only:
        text = TEXT.format(
            passed=len(lines) - len(failed), count=len(lines), table=table(lines),
            seconds=arguments.seconds, memory=arguments.memory, version=onnx_sipp.__version__,
            ram=round(graphs.MEMORY / 2**30),
        )  # fmt: skip
        PAGE.write_text(text, encoding="utf-8")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
