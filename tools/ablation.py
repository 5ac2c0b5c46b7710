"""Prunes one model with one part of the default method changed at a time, and writes the table.

    python tools/ablation.py
    python tools/ablation.py --sparsities 0.8 --append \
        --model "ResNet20 (CIFAR-10)" resnet20.onnx calib.npz test.npz

The test file has the model's inputs and ``labels``. Writes ``docs/results-ablation.md``, anew after
every run; with ``--append`` the models that are there already stay.
"""

import argparse
import os
import platform
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from bench_accuracy import Case, accuracy, command, judge, load_case, outputs
from table_methods import MODELS, ROOT, markdown

import onnx_sipp
from onnx_sipp.pruning.mixing import CANDIDATES

SPARSITIES = (0.7, 0.9)
SAMPLES = 512
BASE = {"allocation": "error", "num_samples": SAMPLES}
CALIB, TEST = (MODELS / f"digits-{part}.npz" for part in ("calib", "test"))
DEFAULT = ("ResNet with BatchNormalization (digits)", MODELS / "resnet_bn.onnx", CALIB, TEST)
TITLE = "# Ablation\n"
TEXT = """\
# Ablation

What each part of the default method is worth. Every row changes one thing of the base and nothing
else. The base refits in graph order (`sequential`), in one round, compares all candidates, and uses
{samples} samples (a fifth of them held out); its budget is `error`. The default budget, `auto`,
tries three such budgets, which is why it takes about three times as long; it has a row of its own.

- *accuracy*: share of the test samples that the pruned model gets right, in per cent;
- *error*: ‖pruned − dense‖ / ‖dense‖ of the model's output on the test samples;
- *seconds*: wall time of one run, all of it, on {cores} shared cores ({machine}).

One run per row, so small differences are noise. The parts are explained in
[accuracy.md](accuracy.md).

"""


@dataclass(frozen=True)
class Row:
    """One variant: the part that it is about, its name, and the options it changes."""

    part: str
    name: str
    change: dict[str, Any]


def variants() -> list[Row]:
    """Returns all rows; the first is the base, which other parts refer to."""
    rows = [Row("base", "sequential, 1 round, `error`, all candidates", {})]
    rows += [
        Row("compensation", name, {"compensate": option})
        for name, option in (("none", "none"), ("layerwise", "layerwise"))
    ]
    rows += [Row("rounds", str(rounds), {"rounds": rounds}) for rounds in (2, 4)]
    budgets = ("auto", "impact", "sipp", "lamp", "layer", "neuron")
    rows += [Row("allocation", f"`{name}`", {"allocation": name}) for name in budgets]
    rows += [Row("one candidate", f"`{name}`", {"candidates": (name,)}) for name in CANDIDATES]
    rows += [Row("samples", str(count), {"num_samples": count}) for count in (32, 128)]
    return rows


def run(case: Case, dense: np.ndarray, sparsity: float, change: dict[str, Any]) -> list[str]:
    """Prunes once.

    Args:
        case: The model and its data.
        dense: The output of the model before.
        sparsity: Share of zeros.
        change: Options other than the base.

    Returns:
        The cells accuracy, error and seconds.
    """
    start = time.perf_counter()
    pruned = onnx_sipp.prune(case.model, case.calib, sparsity=sparsity, **(BASE | change)).model
    took = time.perf_counter() - start
    score, error = judge(case, pruned, dense)
    return [f"{100 * score:.1f}", f"{error:.3f}", f"{took:.1f}"]


def section(
    case: Case, before: float, sparsities: Sequence[float], cells: dict[Row, list[str]]
) -> str:
    """Returns the section of a model; what has not been measured is said below the table.

    Args:
        case: The model and its data.
        before: Accuracy of the dense model.
        sparsities: One group of columns each.
        cells: What has been measured, by the name of the row.
    """
    header = ["part", "changed to"]
    for sparsity in sparsities:
        header += [f"{sparsity:.0%} accuracy", "error", "seconds"]
    wanted = 3 * len(sparsities)
    lines, missing = [], []
    for row in variants():
        found = cells.get(key(row), [])
        lines.append([row.part, row.name, *found, *["–"] * (wanted - len(found))])
        if len(found) < wanted:
            missing.append(f"{row.part} {row.name}")
    text = f"## {case.title}\n\nDense: {100 * before:.1f} %.\n\n{markdown(header, lines)}\n"
    return text + (f"Not measured: {', '.join(missing)}.\n\n" if missing else "")


def key(row: Row) -> tuple[str, str]:
    """Returns what tells rows apart."""
    return row.part, row.name


def main() -> None:
    """Measures and writes the table."""


if __name__ == "__main__":
    main()
