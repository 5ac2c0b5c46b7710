"""Measures how long sensitivities take beside a plain pass of onnxruntime over the same samples.

Each round runs the three one after the other, so that whatever else the machine does falls on all
of them alike; the medians over the rounds are compared. The first round warms up (the kernel is
compiled, files are read) and does not count. The time of `sensitivities` holds everything: reading
the model, opening sessions, checking the samples.

    python tools/bench_sensitivity.py [MODEL.onnx --calib DATA.npz] [--samples 256] [--threads 2]

Exits with 1 if a form takes longer than it may, unless the model is so small that the start of
sessions and threads is what takes the time.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort

import onnx_sipp

MODELS = Path(__file__).resolve().parents[1] / "models"
# Times of a plain pass that a form may take.
LIMITS = {"mean": 20.0, "max": 60.0}
# Seconds of a plain pass from which on its multiples say something.
SHORTEST = 0.05
BATCH = 32


def plain_pass(model: Path, feeds: dict[str, np.ndarray], threads: int) -> Callable[[], None]:
    """Returns what runs the model over all samples, in batches, without the start of the session.

    Args:
        model: The model.
        feeds: The samples by input name.
        threads: The threads of onnxruntime.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    count = len(feeds[names[0]])

    def run() -> None:
        for start in range(0, count, BATCH):
            session.run(None, {name: feeds[name][start : start + BATCH] for name in names})

    return run


def seconds(work: Callable[[], object]) -> float:
    """Returns how long some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> int:
    """Measures and prints.

    Returns:
        0, or 1 if a form is too slow.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=MODELS / "lenet5.onnx")
    parser.add_argument("--calib", type=Path, default=MODELS / "digits-calib.npz")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with np.load(arguments.calib) as data:
        feeds = {name: data[name][: arguments.samples] for name in data.files}

    def form(reduction: str) -> Callable[[], object]:
        return lambda: onnx_sipp.sensitivities(
            arguments.model, feeds, reduction=reduction, threads=arguments.threads
        )

    works = {"plain": plain_pass(arguments.model, feeds, arguments.threads)}
    works |= {reduction: form(reduction) for reduction in LIMITS}
    rounds = [
        {name: seconds(work) for name, work in works.items()} for _ in range(arguments.rounds + 1)
    ]
    median = {name: statistics.median(times[name] for times in rounds[1:]) for name in works}
    print(
        f"{arguments.model.name}, {arguments.samples} samples, {arguments.threads} threads, "
        f"median of {arguments.rounds} rounds:"
    )
    print(f"  plain {median['plain']:7.3f} s")
    slow, judged = False, median["plain"] >= SHORTEST
    for name, limit in LIMITS.items():
        ratio = median[name] / median["plain"]
        slow |= judged and ratio > limit
        verdict = f"at most {limit:.0f}" if judged else "too short to judge"
        print(f"  {name:5} {median[name]:7.3f} s, {ratio:5.1f} times plain ({verdict})")
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
