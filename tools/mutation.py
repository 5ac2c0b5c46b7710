"""Mutation testing of what decides which weights go: do the tests see small faults?

    python tools/mutation.py --sample 300 --seed 3 --write docs/results-mutation.md
    python tools/mutation.py --only onnx_sipp/pruning/budget.py:75

All small changes (``mutating/changes.py``) of the modules are listed in the order of their places
and cut into as many stretches as the sample is to have; one change of each is drawn. Each is tried
in a process of its own, which imports the changed module instead of the original (no file of the
project is touched), on the tests that reach its place: those of the package's own folders, then the
quickest others; slow ones are left out, which can only let more survive. A change that no test sees
survives; the page names it. What is known about survivors is in ``mutating/survivors.toml``.
"""

import argparse
import random
import re
import sys
import tempfile
import time
from itertools import accumulate, pairwise
from pathlib import Path

from mutating.changes import Change, changes
from mutating.page import Trial, page, summary
from mutating.reach import ROOT, Reach, reach
from mutating.trials import outcome

FOLDERS = ["onnx_sipp/pruning", "onnx_sipp/statistics"]
OWN = ["tests/pruning", "tests/statistics"]
OTHERS = [
    "tests/budgeting/test_rounds.py",
    "tests/refitting/test_sequential.py",
    "tests/test_measures.py",
    "tests/refitting/test_rectified.py",
    "tests/refitting/test_layer_sums.py",
    "tests/refitting/test_grouping.py",
    "tests/test_weights.py",
    "tests/test_weight_groups.py",
    "tests/test_rewriting.py",
    "tests/unfolding/test_thinning.py",
    "tests/test_fitting.py",
    "tests/test_slabs.py",
    "tests/test_pipeline.py",
    "tests/refitting/test_idle.py",
    "tests/budgeting/test_respend.py",
    "tests/test_patterned_models.py",
]
# Seconds of other tests that are run, and tests that are not run as they take longer; both while
# coverage watches.
ENOUGH, SLOW = 10.0, 4.0


def drawn(everything: list[tuple[str, Change]], sample: int, seed: int) -> list[tuple[str, Change]]:
    """One change of each of so many stretches of equal length."""
    rng = random.Random(seed)
    size = min(sample, len(everything))
    edges = [len(everything) * i // size for i in range(size + 1)]
    return [everything[rng.randrange(a, b)] for a, b in pairwise(edges)]


def tried(file: str, change: Change, known: Reach, place: Path) -> str:
    """What the tests make of a change."""
    mutant = place / Path(file).name
    place.mkdir()
    mutant.write_bytes(change.made((ROOT / file).read_bytes()))
    tests = [test for test in known.of(file, change) if known.seconds[test] < SLOW]
    own = [test for test in tests if test.startswith(tuple(OWN))]
    others = [test for test in tests if test not in own]
    spent = accumulate(known.seconds[test] for test in others)
    others = [test for test, seconds in zip(others, spent, strict=True) if seconds < ENOUGH]
    result = "unreached"
    for group in filter(None, (own, others)):
        seconds = sum(known.seconds[test] for test in group)
        result = outcome(file.removesuffix(".py").replace("/", "."), mutant, group, seconds, ROOT)
        if result != "survived":
            break
    return result


def main() -> int:
    """Tries the sample, and tells."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="all changes that match a pattern of FILE:LINE")
    parser.add_argument("--work", type=Path, help="a folder that keeps which test reaches what")
    parser.add_argument("--write", type=Path, help="the page")
    given = parser.parse_args()
    files = sorted(str(f.relative_to(ROOT)) for d in FOLDERS for f in (ROOT / d).glob("*.py"))
    everything = [(file, each) for file in files for each in changes((ROOT / file).read_bytes())]
    if given.only:
        chosen = [(f, c) for f, c in everything if re.fullmatch(given.only, f"{f}:{c.line}")]
    else:
        chosen = drawn(everything, given.sample, given.seed)
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        work.mkdir(exist_ok=True)
        known = reach(FOLDERS, OWN + OTHERS, work.resolve() / "reach.json")
        trials = []
        for i, (file, change) in enumerate(chosen):
            start = time.monotonic()
            result = tried(file, change, known, Path(scratch) / str(i))
            trials.append(Trial(file, change, result))
            seconds = time.monotonic() - start
            told = f"{result:9} {seconds:5.1f} s  {file}:{change.line}  {change.told}"
            print(f"{i + 1:4}/{len(chosen)} {told}", flush=True)
    print(summary(trials))
    if given.write:
        draw = f"--sample {given.sample} --seed {given.seed}"
        command = f"python tools/mutation.py {draw} --write docs/{given.write.name}"
        given.write.write_text(page(trials, len(everything), command))
    return 0


if __name__ == "__main__":
    sys.exit(main())
