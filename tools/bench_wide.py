"""Measures wide MLPs pruned by onnx-sipp and by onnxsim's SparseGPT, by default options.

    python tools/bench_wide.py --out docs/results-wide.md

The default sizes take about half an hour, nearly all of it SparseGPT's. Nothing else should run
meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import onnxsim
from bench.rivals import ours_with
from bench.scaling import mlp
from bench.timing import figures, told
from bench_accuracy import Case, judge, outputs, sparsegpt
from make_large import samples
from table_methods import markdown

import onnx_sipp
from onnx_sipp.options import available_threads

SIZES = ["1024x3x1024", "2048x3x1024", "4096x2x1024"]
TEST = 512
HEADER = [
    "layers", "samples", "zeros", "onnx-sipp, s", "SparseGPT, s", "times as fast",
    "error, onnx-sipp", "error, SparseGPT",
]  # fmt: skip
PAGE = """# Wide MLPs

MLPs with random weights and a Relu between layers, correlated random samples, from a model in
memory to a model in memory: onnx-sipp {version} by default options, and the SparseGPT of onnxsim
{onnxsim} on the same samples. Seconds are wall time on {threads} cores; for onnx-sipp the median of
{repeats} runs, one before and the others after the single one of SparseGPT. *error* is
‖pruned − dense‖ / ‖dense‖ of the output, on {test} samples that took no part in pruning. In the
minute before, {load:.1f} processes were ready to run on average.

{table}

SparseGPT goes through the inputs of a layer one by one; onnx-sipp solves least squares by products
of whole matrices. From some width on it does not try budgets out; see [accuracy.md](accuracy.md).

Made by `python tools/bench_wide.py {words}--out docs/results-wide.md`.
"""


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="WIDTHxDEPTHxSAMPLES")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=2, help="runs of onnx-sipp")
    parser.add_argument("--out", type=Path)
    return parser.parse_args(words)


def row(size: str, sparsity: float, repeats: int) -> list[str]:
    """Prunes one MLP by both."""
    width, depth, count = map(int, size.split("x"))
    rows = samples(count + TEST, width, 0)
    calib, test = {"x": rows[:count]}, {"x": rows[count:]}
    case = Case(f"MLP {size}", mlp(width, depth), calib, test, None, "")
    dense = outputs(case.model, test)
    prunes = {"onnx-sipp": ours_with(), "SparseGPT": sparsegpt}
    seconds: dict[str, list[float]] = {name: [] for name in prunes}
    errors: dict[str, float] = {}
    for name in [*prunes, *["onnx-sipp"] * (repeats - 1)]:
        told(f"{size}: {name}")
        begin = time.perf_counter()
        pruned = prunes[name](case.model, calib, sparsity)
        seconds[name].append(time.perf_counter() - begin)
        errors[name] = judge(case, pruned, dense)[1]
    own, theirs = (statistics.median(found) for found in seconds.values())
    return [
        f"{depth} × {width}×{width}", f"{count:,}", f"{100 * sparsity:g} %", figures(own),
        figures(theirs), f"**{theirs / own:.1f}**", f"{errors['onnx-sipp']:.4f}",
        f"{errors['SparseGPT']:.4f}",
    ]  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    given = parsed(words)
    load = os.getloadavg()[0]
    ours_with()(mlp(16, 2), {"x": samples(64, 16, 0)}, 0.5)  # what is compiled does not count
    lines = [row(size, given.sparsity, given.repeats) for size in given.sizes]
    asked = "" if given.sizes == SIZES else f"--sizes {' '.join(given.sizes)} "
    text = PAGE.format(
        version=onnx_sipp.__version__, onnxsim=onnxsim.__version__, threads=available_threads(),
        repeats=given.repeats, test=TEST, load=load, table=markdown(HEADER, lines), words=asked,
    )  # fmt: skip
    print(text, end="")
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
