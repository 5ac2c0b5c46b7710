"""Prunes one model with one part of the default method changed at a time, and writes the table.

    python tools/ablation.py
    python tools/ablation.py --also "ResNet20 (CIFAR-10)" resnet20.onnx calib.npz test.npz

The test file has the model's inputs and ``labels``. Writes ``docs/results-ablation.md``, anew after
every row, so that a run that is stopped leaves what it has measured.
"""

import argparse
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime as ort
from bench_accuracy import Case, accuracy, command, judge, load_case, outputs
from numpy.typing import NDArray
from table_methods import MODELS, ROOT, markdown

import onnx_sipp
from onnx_sipp.pruning.candidates import CANDIDATES
from onnx_sipp.pruning.mixing import Choice
from onnx_sipp.refitting.rectified import Rectifier

Cells = dict[str, list[str]]

SAMPLES = 512
BASE: dict[str, Any] = {"allocation": "error", "num_samples": SAMPLES}
CALIB, TEST = (MODELS / f"digits-{part}.npz" for part in ("calib", "test"))
DEFAULT = ("ResNet with BatchNormalization (digits)", MODELS / "resnet_bn.onnx", CALIB, TEST)
TEXT = """\
# Ablation

What each part of the default method is worth. Every row changes one thing of the base and nothing
else. The base refits in graph order (`sequential`), in one round, compares all candidates, and uses
{samples} samples (a fifth of them held out); its budget is `error`. The default budget, `auto`,
tries three such budgets, which is why it takes about three times as long; it has a row of its own.

- *accuracy*: share of the test samples that the pruned model gets right, in per cent;
- *error*: ‖pruned − dense‖ / ‖dense‖ of the model's output on the test samples;
- *seconds*: wall time of one run, all of it, on {cores} cores ({machine}) of a shared machine,
  where other work slows some runs down.

One run per row, so small differences are noise. The parts are explained in
[accuracy.md](accuracy.md).

{tables}Made by `{command}` with onnx-sipp {version}, onnxruntime {ort}, numpy {numpy}.
"""


@dataclass(frozen=True)
class Row:
    """One variant: the part that it is about, its name, and the options it changes."""

    part: str
    name: str
    change: dict[str, Any]
    exact_targets: bool = False

    @property
    def title(self) -> str:
        """What tells rows apart."""
        return f"{self.part} {self.name}"


def variants() -> list[Row]:
    """Returns all rows; the first is the base, which is part of every comparison."""
    rows = [Row("base", "", {})]
    rows += [
        Row("compensation", f"`{name}`", {"compensate": name}) for name in ("none", "layerwise")
    ]
    rows += [Row("rounds", str(rounds), {"rounds": rounds}) for rounds in (2, 4)]
    budgets = ("auto", "impact", "sipp", "lamp", "layer", "neuron")
    rows += [Row("allocation", f"`{name}`", {"allocation": name}) for name in budgets]
    rows += [Row("one candidate", f"`{name}`", {"candidates": (name,)}) for name in CANDIDATES]
    rows += [Row("what is cut off", "counts", {}, exact_targets=True)]
    rows += [Row("dead paths", "off", {"dead_paths": False})]
    rows += [Row("new biases", "off", {"new_biases": False})]
    rows += [Row("samples", str(count), {"num_samples": count}) for count in (32, 128)]
    return rows


def run(case: Case, dense: NDArray[np.float64], sparsity: float, row: Row) -> list[str]:
    """Prunes once.

    Args:
        case: The model and its data.
        dense: The output of the model before.
        sparsity: Share of zeros.
        row: What is other than in the base.

    Returns:
        The cells accuracy, error and seconds.
    """
    start = time.perf_counter()
    options = BASE | row.change | {"sparsity": sparsity}
    with patch.object(Rectifier, "refine", unchanged) if row.exact_targets else nullcontext():
        pruned = onnx_sipp.prune(case.model, case.calib, **options).model
    took = time.perf_counter() - start
    score, error = judge(case, pruned, dense)
    return [f"{100 * score:.1f}", f"{error:.3f}", f"{took:.1f}"]


def unchanged(
    rectifier: Rectifier, place: object, judged: object, choice: Choice, *_: Any
) -> Choice:
    """Stands for `Rectifier.refine`: what the next node cuts off counts as much as the rest."""
    del rectifier, place, judged
    return choice


def section(case: Case, before: float, sparsities: Sequence[float], cells: Cells) -> str:
    """Returns the section of a model; what has not been measured is said below the table.

    Args:
        case: The model and its data.
        before: Accuracy of the dense model.
        sparsities: One group of columns each.
        cells: What has been measured, by the title of the row.
    """
    header = ["part", "changed to"]
    for sparsity in sparsities:
        header += [f"{sparsity:.0%} accuracy", "error", "seconds"]
    rows = [row for row in variants() if row.title in cells]
    table = markdown(header, [[row.part, row.name, *cells[row.title]] for row in rows])
    missing = [row.title for row in variants() if row.title not in cells]
    text = f"## {case.title}\n\nDense: {100 * before:.1f} %.\n\n{table}\n"
    return text + (f"Not measured: {', '.join(missing)}.\n\n" if missing else "")


def measure(case: Case, sparsities: Sequence[float]) -> Iterator[str]:
    """Yields the section of a model, anew after every row."""
    dense = outputs(case.model, case.test)
    cells: Cells = {}
    for row in variants():
        results = [run(case, dense, sparsity, row) for sparsity in sparsities]
        cells[row.title] = [cell for result in results for cell in result]
        print(f"{case.title}: {row.title}: {' '.join(cells[row.title])}", flush=True)
        yield section(case, accuracy(case, dense), sparsities, cells)


def write(out: Path, sections: Sequence[str]) -> None:
    """Writes the page with what has been measured so far."""
    text = TEXT.format(
        samples=SAMPLES,
        cores=os.cpu_count(),
        machine=platform.machine(),
        tables="".join(sections),
        command=command("ablation.py"),
        version=onnx_sipp.__version__,
        ort=ort.__version__,
        numpy=np.__version__,
    )
    out.write_text(text, encoding="utf-8")


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
    parser.add_argument("--sparsities", type=float, nargs="+", default=(0.7, 0.9))
    parser.add_argument(
        "--also-sparsities", type=float, nargs="+", default=(0.8,), help="of the models of --also"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results-ablation.md")
    arguments = parser.parse_args()
    jobs = [(load_case(*DEFAULT), arguments.sparsities)]
    jobs += [(load_case(*files), arguments.also_sparsities) for files in arguments.also]
    sections: list[str] = []
    for case, sparsities in jobs:
        sections.append("")
        for sections[-1] in measure(case, sparsities):
            write(arguments.out, sections)


if __name__ == "__main__":
    main()
