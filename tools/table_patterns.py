"""Prunes models with patterns of zeros, and writes the table.

    python tools/table_patterns.py
    python tools/table_patterns.py --also "ResNet20 (CIFAR-10)" resnet20.onnx calib.npz test.npz

The test file has the model's inputs and ``labels``. Writes ``docs/results-patterns.md``, anew after
every row. With ``--keep`` rows that the file has already are not measured again. Polygraphy checks
which weights have 2 zeros in every 4.
"""

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import polygraphy
from bench_accuracy import Case, accuracy, command, judge, load_case, outputs
from numpy.typing import NDArray
from polygraphy.tools.sparse import SparsityPruner
from table_methods import MODELS, ROOT, markdown

import onnx_sipp

SAMPLES = 512
CALIB, TEST = (MODELS / f"digits-{part}.npz" for part in ("calib", "test"))
DIGITS = {"Transformer (digits)": "transformer"}
# A third of the time of the default, which tries three budgets.
BUDGET = {"allocation": "error"}
ROWS: list[tuple[str, str, dict[str, Any]]] = [
    ("2:4", "", {"pattern": "2:4"}),
    (
        "2:4",
        "only the exact greedy order and swaps",
        {"pattern": "2:4", "candidates": ["removal-cost"]},
    ),
    ("2:4", "only by activation", {"pattern": "2:4", "candidates": ["activation"]}),
    ("2:4", "`wanda`, no refit", {"pattern": "2:4", "method": "wanda"}),
    ("2:4", "`magnitude`, no refit", {"pattern": "2:4", "method": "magnitude"}),
    ("4:8", "", {"pattern": "4:8"}),
    ("1:4", "", {"pattern": "1:4"}),
    *(
        (pattern or "anywhere", "", {"pattern": pattern, "sparsity": sparsity} | BUDGET)
        for sparsity in (0.5, 0.7)
        for pattern in ("4x1", "1x4", "")
    ),
]
TEXT = """\
# Patterns

The default method with patterns of zeros (see [usage.md](usage.md)), beside zeros anywhere and
simpler ways to choose. {samples} samples, a fifth of them held out. Blocks and zeros anywhere are
with `--allocation error`.

- *zeros*: share of zeros in the layers that the pattern fits; the others stay dense;
- *accuracy*: on the test samples, in per cent; *error*: ‖pruned − dense‖ / ‖dense‖ of the output;
- *2 of 4*: weights that Polygraphy {polygraphy} finds to have 2 zeros in every 4 (what its
  `inspect sparsity` reports), of those that were pruned;
- *seconds*: wall time of the whole run on {cores} cores ({machine}) of a shared machine.

One run per row, so differences of accuracy of some tenths of a per cent are noise.

{table}
Made by `{command}` with onnx-sipp {version}, onnxruntime {ort}, numpy {numpy}.
"""
HEADER = ["model", "pattern", "how", "zeros", "accuracy", "dense", "error", "2 of 4", "seconds"]


def measure(
    case: Case, dense: NDArray[np.float64], name: str, how: str, options: dict[str, Any]
) -> list[str]:
    """Prunes once and returns the cells of a row.

    Args:
        case: The model and its data.
        dense: The output of the model before.
        name: Of the pattern.
        how: What is not default.
        options: Of the run.
    """
    start = time.perf_counter()
    result = onnx_sipp.prune(case.model, case.calib, num_samples=SAMPLES, **options)
    took = time.perf_counter() - start
    right, error = judge(case, result.model, dense)
    checker = SparsityPruner(result.model)
    checker.check()
    weights = {row.weight for row in result.report.layers}
    return [
        case.title, name, how, f"{result.report.sparsity:.2%}", f"{100 * right:.2f}",
        f"{100 * accuracy(case, dense):.2f}", f"{error:.4f}",
        f"{len(weights & checker.sparse_tensors)}/{len(weights)}", f"{took:.0f}",
    ]  # fmt: skip


def measured_before(path: Path) -> list[list[str]]:
    """Reads the rows of a table that was written before."""
    if not path.exists():
        return []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


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
    parser.add_argument("--keep", action="store_true", help="keep the rows that are there already")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results-patterns.md")
    arguments = parser.parse_args()
    cases = [load_case(*files) for files in arguments.also]
    cases += [load_case(t, MODELS / f"{n}.onnx", CALIB, TEST) for t, n in DIGITS.items()]
    before = measured_before(arguments.out) if arguments.keep else []
    rows: list[list[str]] = []
    for case in cases:
        dense = outputs(case.model, case.test)
        for name, how, options in ROWS:
            share = options.get("sparsity")
            same = [
                row
                for row in before
                if row[:3] == [case.title, name, how]
                and (share is None or abs(float(row[3].rstrip("%")) / 100 - share) < 0.01)
            ]
            rows.append(same[0] if same else measure(case, dense, name, how, options))
            print(" | ".join(rows[-1]), flush=True)
            text = TEXT.format(
                samples=SAMPLES,
                polygraphy=polygraphy.__version__,
                cores=os.cpu_count(),
                machine=platform.machine(),
                table=markdown(HEADER, rows),
                command=command("table_patterns.py"),
                version=onnx_sipp.__version__,
                ort=ort.__version__,
                numpy=np.__version__,
            )
            if not same:
                arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
