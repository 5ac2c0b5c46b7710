"""How close a search for a goal comes to the best point of the curve, and what it costs.

    python tools/bench_search.py MODEL.onnx SAMPLES [--min-agreement 0.99] [--step 0.01]

Prunes once at the sparsity that is found, searches, and sweeps around the answer. Times are what
the process worked (all threads), so that other programs do not count.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import onnx_sipp

Result = TypeVar("Result")
STEPS = 4


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("samples")
    parser.add_argument("--min-agreement", type=float, default=0.99)
    parser.add_argument("--step", type=float, default=0.01)
    given = parser.parse_args()

    def prune(**options: float) -> onnx_sipp.Report:
        return onnx_sipp.prune(given.model, given.samples, **options).report

    found, search_seconds = timed(lambda: prune(min_agreement=given.min_agreement))
    assert found.search is not None
    answer = found.search.sparsity
    _, prune_seconds = timed(lambda: prune(sparsity=answer))
    print(f"found {answer:.2%} in {len(found.search.steps)} passes")
    print(f"search {search_seconds:.1f} s, prune {prune_seconds:.1f} s: "
          f"{search_seconds / prune_seconds:.2f} times")  # fmt: skip
    around = [round(answer + given.step * step, 4) for step in range(-STEPS, STEPS + 1)]
    curve = onnx_sipp.sweep(
        given.model, given.samples, sparsities=[share for share in around if 0 <= share < 1]
    )
    for point in curve.points:
        print(f"{point.sparsity:.2%}: agreement {point.top1_agreement:.2%}, "
              f"error {point.relative_error:.4g}")  # fmt: skip
    met = [p.sparsity for p in curve.points if (p.top1_agreement or 0) >= given.min_agreement]
    print(f"best on the curve around it: {max(met, default=0):.2%}")


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """What a function returns, and the seconds that the process worked."""
    started = time.process_time()
    return work(), time.process_time() - started


if __name__ == "__main__":
    main()
