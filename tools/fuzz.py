"""Fuzzes what reads files of strangers: models, samples, configurations, masks, external data.

    python tools/fuzz.py [TARGET …] [--runs 10000] [--seconds S] [--zoo FOLDER] [--corpus DIR]
    python tools/fuzz.py --plain --runs 10000 [--runs-of model=1000] --out docs/results-fuzzing.md
    python tools/fuzz.py --replay FILE TARGET

With atheris (PyPI) the runs are guided by the branches of onnx_sipp that inputs reach, and what
reaches new ones is kept in ``--corpus``; with ``--plain`` changes are made blindly. A model is
changed field by field, other files byte by byte. A target may refuse an input with a message;
everything else is a finding: the input is written to ``tests/fuzzing/regressions/TARGET``, where
the tests replay it, and the script exits with 1. So it does after 20 CPU seconds.
"""

import argparse
import hashlib
import random
import resource
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from fuzzing.mutations import mutated
from fuzzing.seeds import REGRESSIONS, seeds
from fuzzing.targets import TARGETS, fed

import onnx_sipp

SLOW = 20
PAGE = """\
# Fuzzing

{total:,} files, made of valid ones by random changes, were fed to what reads files of strangers.
Each was taken, or refused with a message; anything else, or more than {slow} seconds of CPU, would
have ended the run. *memory* is the most that the process had had after a tenth of the runs, and in
the end.

| target | runs | taken | seconds | memory early, MiB | memory, MiB |
| --- | --- | --- | --- | --- | --- |
{lines}

A target is a kind of file: `samples` are `.npz`, `array` is `.npy`, `reference` is where a model
says its external data are. Made by `python tools/fuzz.py --plain --runs {runs}{of} --seed
{seed}{zoo} --out docs/results-fuzzing.md` with onnx-sipp {version}.
"""


def _too_slow(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise TimeoutError(f"takes more than {SLOW} s of CPU")


def tried(name: str, data: bytes) -> bool:
    """Feeds a target; a finding is written down and raised.

    Returns:
        Whether the input was taken.
    """
    signal.setitimer(signal.ITIMER_PROF, SLOW)
    try:
        return fed(TARGETS[name], data)
    except BaseException:
        if not isinstance(sys.exc_info()[1], KeyboardInterrupt):
            place = REGRESSIONS / name
            place.mkdir(parents=True, exist_ok=True)
            (place / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        raise
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def plain(name: str, given: argparse.Namespace) -> str:
    """Changes inputs blindly; now and then one that was taken becomes a new start.

    Returns:
        A line of the table.
    """
    rng = random.Random(f"{given.seed} {name}")
    corpus = seeds(name, given.zoo)
    most = dict(given.runs_of).get(name, given.runs)
    start, taken, runs, early = time.monotonic(), 0, 0, 0
    while runs < most and not (given.seconds and time.monotonic() - start > given.seconds):
        runs += 1
        data = mutated(name, rng.choice(corpus), rng)
        if tried(name, data):
            taken += 1
            if rng.random() < 0.05 and len(corpus) < 500:
                corpus.append(data)
        if runs <= most // 10:
            early = peak()
    seconds = time.monotonic() - start
    line = f"{name} | {runs:,} | {taken:,} | {seconds:.0f} | {early} | {peak()}"
    print(line, flush=True)
    return f"| {line} |"


def peak() -> int:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def page(lines: Sequence[str], total: int, given: argparse.Namespace) -> str:
    """What came of a run without findings."""
    return PAGE.format(
        total=total, lines="\n".join(lines), slow=SLOW, seed=given.seed, runs=given.runs,
        of="".join(f" --runs-of {name}={count}" for name, count in given.runs_of),
        zoo=" --zoo FOLDER" if given.zoo else "", version=onnx_sipp.__version__,
    )  # fmt: skip


def number_of(text: str) -> tuple[str, int]:
    """Reads ``TARGET=RUNS``."""
    name, _, count = text.partition("=")
    return name, int(count)


def guided(name: str, given: argparse.Namespace) -> None:
    """Runs atheris, which does not come back."""
    import atheris  # noqa: PLC0415 - optional

    def changed(data: bytes, most: int, seed: int) -> bytes:
        return mutated(name, data, random.Random(seed))[:most]

    corpus = (given.corpus or Path("corpus")) / name
    corpus.mkdir(parents=True, exist_ok=True)
    for data in seeds(name, given.zoo):
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    arguments = [sys.argv[0], str(corpus), f"-runs={given.runs}", "-rss_limit_mb=4096",
                 f"-timeout={SLOW}", f"-max_len={1 << 20}", f"-seed={given.seed + 1}",
                 f"-max_total_time={given.seconds or 0}"]  # fmt: skip
    atheris.instrument_all()
    atheris.Setup(arguments, lambda data: tried(name, data) and None, custom_mutator=changed)
    atheris.Fuzz()


def main() -> None:
    """Fuzzes the targets one after the other, or the only one guided."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("targets", nargs="*", help=", ".join(TARGETS))
    parser.add_argument("--runs", type=int, default=10_000, help="of each target")
    parser.add_argument(
        "--runs-of", type=number_of, action="append", default=[], metavar="TARGET=RUNS",
        help="of one target, in place of --runs",
    )  # fmt: skip
    parser.add_argument("--seconds", type=int, help="of each target, at most")
    parser.add_argument("--out", type=Path, help="the page to write, with --plain")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--zoo", type=Path, help="a folder with more models to start from")
    parser.add_argument("--corpus", type=Path, help="where atheris keeps what it finds")
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--replay", type=Path, help="feed this file and nothing else")
    given = parser.parse_args()
    names = given.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"there are no targets {', '.join(sorted(unknown))}")
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _too_slow)
    if given.replay is not None:
        print("taken" if fed(TARGETS[names[0]], given.replay.read_bytes()) else "refused")
    elif given.plain:
        lines = [plain(name, given) for name in names]
        total = sum(int(line.split(" | ")[1].replace(",", "")) for line in lines)
        if given.out is not None:
            given.out.write_text(page(lines, total, given), encoding="utf-8")
    elif len(names) != 1:
        parser.error("atheris takes one target at a time; or use --plain")
    else:
        guided(names[0], given)


if __name__ == "__main__":
    main()
