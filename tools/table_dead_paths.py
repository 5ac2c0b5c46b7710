"""Prunes models with and without freeing dead paths, and writes the table.

    python tools/table_dead_paths.py
    python tools/table_dead_paths.py --also "ResNet20 (CIFAR-10)" resnet20.onnx calib.npz test.npz

The test file has the model's inputs and ``labels``. Writes ``docs/results-dead-paths.md``, anew
after every row.
"""

import argparse
import os
import platform
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from bench_accuracy import Case, accuracy, command, judge, load_case, outputs
from table_methods import MODELS, ROOT, markdown

import onnx_sipp
from onnx_sipp.report.result import Report

SPARSITIES = (0.9, 0.95, 0.98)
SAMPLES = 512
CALIB, TEST = (MODELS / f"digits-{part}.npz" for part in ("calib", "test"))
DIGITS = {
    "LeNet300 (digits)": "lenet300",
    "LeNet5 (digits)": "lenet5",
    "ResNet with BatchNormalization (digits)": "resnet_bn",
    "Transformer (digits)": "transformer",
}
TEXT = """\
# Dead paths

The default method with `dead_paths` off and on: after pruning, weights that no output depends on
are dropped, and as many others stay in their place. {samples} samples, a fifth of them held out.

- *freed*: weights that did nothing and made room for others, in per cent of the kept ones, over all
  passes that were used; *where*: most of them, by layer;
- *error*: ‖pruned − dense‖ / ‖dense‖ of the output on the test samples; *accuracy* on them in
  per cent;
- *seconds*: CPU time of the whole run, of all threads, on {cores} cores ({machine}).

A pass is repeated only where more than 1 % of the kept weights are idle, at most three times, and
used only if it errs less on up to 16 batches, the held-out ones first. Differences of accuracy of
some tenths of a per cent are noise: one run per cell.

{table}
Made by `{command}` with onnx-sipp {version}, onnxruntime {ort}, numpy {numpy}.
"""
HEADER = ["model", "sparsity", "freed", "where", "passes", "error off", "error on",
          "accuracy off", "accuracy on", "dense", "seconds off", "seconds on"]  # fmt: skip


def where(report: Report) -> str:
    """Names the layers that most weights were freed in."""
    layers = sorted((row for row in report.layers if row.freed), key=lambda row: -row.freed)
    return ", ".join(f"{row.name} {row.freed}" for row in layers[:2]) or "–"


def measure(case: Case, sparsity: float) -> list[str]:
    """Prunes twice and returns the cells of a row."""
    dense = outputs(case.model, case.test)
    found = []
    for on in (False, True):
        start = time.process_time()
        result = onnx_sipp.prune(
            case.model, case.calib, sparsity=sparsity, num_samples=SAMPLES, dead_paths=on
        )
        took = time.process_time() - start
        found.append((result.report, *judge(case, result.model, dense), took))
    (_, *off), (report, *on_) = found
    kept = report.prunable - report.zeros
    passes = max(len(report.freed_errors) - 1, 0)
    return [
        case.title, f"{sparsity:.0%}", f"{100 * report.freed / kept:.1f} %", where(report),
        str(passes), f"{off[1]:.4f}", f"{on_[1]:.4f}", f"{100 * off[0]:.1f}",
        f"{100 * on_[0]:.1f}", f"{100 * accuracy(case, dense):.1f}", f"{off[2]:.1f}",
        f"{on_[2]:.1f}",
    ]  # fmt: skip


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--also",
        nargs=4,
        action="append",
        default=[],
        metavar=("TITLE", "MODEL", "CALIB", "TEST"),
        help="another model with its data",
    )
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results-dead-paths.md")
    arguments = parser.parse_args()
    cases = [load_case(t, MODELS / f"{n}.onnx", CALIB, TEST) for t, n in DIGITS.items()]
    cases += [load_case(*files) for files in arguments.also]
    rows: list[list[str]] = []
    for case in cases:
        for sparsity in arguments.sparsities:
            rows.append(measure(case, sparsity))
            print(" | ".join(rows[-1]), flush=True)
            text = TEXT.format(
                samples=SAMPLES,
                cores=os.cpu_count(),
                machine=platform.machine(),
                table=markdown(HEADER, rows),
                command=command("table_dead_paths.py"),
                version=onnx_sipp.__version__,
                ort=ort.__version__,
                numpy=np.__version__,
            )
            arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
