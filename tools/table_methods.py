"""Prunes models by every method at several sparsities and writes the table in the docs.

    python tools/table_methods.py
    python tools/table_methods.py --also "ResNet20 (CIFAR-10)" resnet20.onnx calib.npz test.npz

The test file has the model's inputs and ``labels``. Writes ``docs/results-methods.md``.
"""

import argparse
import os
import platform
import shlex
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

import onnx_sipp
from onnx_sipp.pruning.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "models"
OURS = {
    "LeNet300-100 (digits)": "lenet300",
    "LeNet5 (digits)": "lenet5",
    "ResNet with BatchNormalization (digits)": "resnet_bn",
    "Transformer encoder (digits)": "transformer",
}
SPARSITIES = (0.3, 0.5, 0.7, 0.9)
BATCH = 100
TEXT = """\
# Methods compared

Every method prunes every model at several sparsities, each with its own default budget and the
calibration data of the model. Nothing is retrained{refit}.

- *accuracy*: share of the test images that the pruned model gets right, in per cent;
- *error*: relative error of the logits, ‖pruned − dense‖ / ‖dense‖, on the fifth of the calibration
  samples that calibration did not see, as in the report of a run;
- *seconds*: median wall time of a run, all of it, on {cores} cores ({machine}).

The methods are explained in [methods.md](methods.md). `random` is the floor.

{tables}## Over all models

Mean accuracy over the {count} models, in per cent:

{summary}
Made by `{command}` with onnx-sipp {version}, onnxruntime {ort}, numpy {numpy}.
"""


@dataclass(frozen=True)
class Subject:
    """A model with its data."""

    title: str
    model: Path
    calib: Path
    test: Path


@dataclass(frozen=True)
class Result:
    """What one run gave."""

    accuracy: float
    error: float
    seconds: float


def accuracy(model: bytes | Path, test: dict[str, Any]) -> float:
    """Returns the share of the test samples whose largest logit is that of the label.

    Args:
        model: The model, with one output of class scores.
        test: The inputs by name, and ``labels``.
    """
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    labels = test["labels"]
    right = 0
    for start in range(0, len(labels), BATCH):
        batch = slice(start, start + BATCH)
        scores = session.run(None, {name: test[name][batch] for name in names})[0]
        right += int((np.asarray(scores).argmax(axis=1) == labels[batch]).sum())
    return right / len(labels)


def run(subject: Subject, test: dict[str, Any], **options: Any) -> Result:
    """Prunes a model and judges the result.

    Args:
        subject: The model and its data.
        test: The test data.
        **options: Of `onnx_sipp.prune`.
    """
    start = time.perf_counter()
    result = onnx_sipp.prune(subject.model, subject.calib, **options)
    took = time.perf_counter() - start
    error = result.report.outputs[0].relative_error
    score = accuracy(result.model.SerializeToString(), test)
    return Result(score, float("nan") if error is None else error, took)


def measure(subject: Subject, methods: Sequence[str]) -> tuple[float, dict[str, list[Result]]]:
    """Returns the accuracy before, and for each method a result per sparsity."""
    with np.load(subject.test) as data:
        test = {name: data[name] for name in data.files}
    rows: dict[str, list[Result]] = {}
    for method in methods:
        rows[method] = [run(subject, test, method=method, sparsity=s) for s in SPARSITIES]
        accuracies = " ".join(f"{result.accuracy:.4f}" for result in rows[method])
        print(f"{subject.title}: {method}: {accuracies}", flush=True)
    return accuracy(subject.model, test), rows


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table; all columns but the first are numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *rows))


def table(rows: dict[str, list[Result]]) -> str:
    """Returns the table of one model; the best accuracy of each sparsity is bold."""
    header = ["method"]
    for sparsity in SPARSITIES:
        header += [f"{sparsity:.0%} accuracy", "error"]
    best = [max(round(r[i].accuracy, 4) for r in rows.values()) for i in range(len(SPARSITIES))]
    lines = []
    for method, results in rows.items():
        line = [f"`{method}`"]
        for result, highest in zip(results, best, strict=True):
            bold = "**" if round(result.accuracy, 4) == highest else ""
            line += [f"{bold}{100 * result.accuracy:.1f}{bold}", f"{result.error:.2g}"]
        line.append(f"{statistics.median(result.seconds for result in results):.1f}")
        lines.append(line)
    return markdown([*header, "seconds"], lines)


def summary(all_rows: Sequence[dict[str, list[Result]]], methods: Sequence[str]) -> str:
    """Returns the table of means over the models."""
    lines = []
    for method in methods:
        means = [
            statistics.mean(rows[method][i].accuracy for rows in all_rows)
            for i in range(len(SPARSITIES))
        ]
        lines.append([f"`{method}`", *[f"{100 * mean:.1f}" for mean in means]])
    return markdown(["method", *[f"{sparsity:.0%}" for sparsity in SPARSITIES]], lines)


def command(also: Sequence[Sequence[str]]) -> str:
    """Returns the command that was run, without the folders of this machine."""
    words = ["python", "tools/table_methods.py"]
    for title, *files in also:
        words += ["--also", title, *(Path(file).name for file in files)]
    return shlex.join(words)


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
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results-methods.md")
    arguments = parser.parse_args()
    calib, test = (MODELS / f"digits-{part}.npz" for part in ("calib", "test"))
    subjects = [
        Subject(title, MODELS / f"{name}.onnx", calib, test) for title, name in OURS.items()
    ]
    subjects += [
        Subject(title, *(Path(file) for file in files)) for title, *files in arguments.also
    ]
    methods = list(METHODS)
    parts, all_rows = [], []
    for subject in subjects:
        before, rows = measure(subject, methods)
        all_rows.append(rows)
        parts.append(f"## {subject.title}\n\nDense: {100 * before:.1f} %.\n\n{table(rows)}\n")
    refit = ", and only `mixed` refits the weights that stay" if "mixed" in methods else ""
    text = TEXT.format(
        refit=refit,
        cores=os.cpu_count(),
        machine=platform.machine(),
        tables="".join(parts),
        count=len(subjects),
        summary=summary(all_rows, methods),
        command=command(arguments.also),
        version=onnx_sipp.__version__,
        ort=ort.__version__,
        numpy=np.__version__,
    )
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
