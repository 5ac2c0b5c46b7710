"""What mutation testing shows, for people."""

import tomllib
from collections import Counter
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from mutating.changes import Change
from mutating.reach import ROOT

NOTES = Path(__file__).with_name("survivors.toml")
HEADER = ["file", "changes", "killed", "of these too slow", "survived", "of these not reached"]
PAGE = """# Do the tests see small faults?

Of {tried} small faults put into the code, the tests see
**{share}**.
In the words of the trade, {killed} mutants are killed and {survived} survive.

There are {total:,} such changes of `onnx_sipp/pruning` and `onnx_sipp/statistics`, which decide
what goes and what stays: another comparison or operator, a condition turned round, a number one
more or less (a large one ten times), `and` for `or`, `min` for `max`, a statement, a sign, a copy
or a square root left out. Those that were tried are drawn evenly over all of them. Not among them
are changes that any run trips over, such as None for an argument or a name that does not exist, nor
strings, messages, annotations and decorators, nor into how many parts work is cut for threads.

A mutant counts as killed if a test fails, if it cannot be imported, or if the tests take more than
three times as long and 10 seconds of CPU (told apart). It is tried on the tests of `tests/pruning`
and `tests/statistics` that reach its line and on other quick ones that do, 10 seconds of them. The
sample was drawn after the tests were written; tests that have been written since are not counted.

    pip install -e '.[test]'
    {command}

| {header} |
| {rule} |
{rows}
## Survivors

Why is from reading the code around them.

{survivors}"""


@dataclass(frozen=True)
class Trial:
    """A change and what became of it: ``killed``, ``time``, ``survived`` or ``unreached``."""

    file: str
    change: Change
    result: str

    @property
    def killed(self) -> bool:
        """Whether the tests have seen it."""
        return self.result in {"killed", "time"}


def interval(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, share = 1.96, hits / trials
    middle = share + z * z / (2 * trials)
    half = z * sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    scale = 1 + z * z / trials
    return (middle - half) / scale, (middle + half) / scale


def summary(trials: list[Trial]) -> str:
    """The share that is killed, with its interval."""
    killed = sum(trial.killed for trial in trials)
    low, high = interval(killed, len(trials))
    return f"{killed / len(trials):.1%} (95 % interval: {low:.1%} to {high:.1%})"


def page(trials: list[Trial], total: int, command: str) -> str:
    """The page of the documentation."""
    files = sorted({trial.file for trial in trials})
    rows = [_row(f"`{file}`", [t for t in trials if t.file == file]) for file in files]
    killed = sum(trial.killed for trial in trials)
    return PAGE.format(
        total=total,
        tried=len(trials),
        share=summary(trials),
        killed=killed,
        survived=len(trials) - killed,
        command=command,
        header=" | ".join(HEADER),
        rule=" | ".join(["---"] * len(HEADER)),
        rows="".join(f"{row}\n" for row in [*rows, _row("all", trials)]),
        survivors="".join(_survivors(trials)),
    )


def _row(name: str, trials: list[Trial]) -> str:
    counts = Counter(trial.result for trial in trials)
    killed, survived = counts["killed"] + counts["time"], counts["survived"] + counts["unreached"]
    cells = [len(trials), killed, counts["time"], survived, counts["unreached"]]
    return f"| {' | '.join([name, *map(str, cells)])} |"


def _survivors(trials: list[Trial]) -> list[str]:
    """A line each, with why, where somebody has looked at it."""
    notes = tomllib.loads(NOTES.read_text())["survivor"]
    lines = []
    for trial in trials:
        if not trial.killed:
            why = next((note["why"] for note in notes if _is_about(note, trial)), "not looked at")
            reached = "" if trial.result == "survived" else " (no test gets there)"
            place = f"`{trial.file}:{trial.change.line}`"
            lines.append(f"- {place}{reached} {trial.change.told}: {why}\n")
    return lines


def _is_about(note: dict[str, str], trial: Trial) -> bool:
    """Whether a note tells of a line, and of this change of it, or of any."""
    line = (ROOT / trial.file).read_text().splitlines()[trial.change.line - 1].strip()
    change = note.get("change")
    return (note["file"], note["line"]) == (trial.file, line) and (
        change is None or change == trial.change.told.replace("`", "")
    )
