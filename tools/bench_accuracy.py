"""Prunes models by onnx-sipp and by onnxsim's methods, side by side, and writes the table.

    python tools/bench_accuracy.py
    python tools/bench_accuracy.py --wide 2048 \
        --also "ResNet20 (CIFAR-10)" resnet20.onnx calib.npz test.npz

All get the same calibration samples. Zeros are counted among the same weights, those that
onnx-sipp prunes. The test file has the model's inputs and ``labels``. ``--wide N`` adds a MatMul of
N×N with made-up rows. Writes ``docs/results-accuracy.md``, anew after every model.
"""

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxsim.pruning import (  # type: ignore[import-untyped]
    apply_magnitude_pruning,
    apply_sparsegpt_pruning,
    apply_wanda_pruning,
)
from table_methods import MODELS, OURS, ROOT, markdown

import onnx_sipp

Arrays = dict[str, NDArray[np.generic]]
Prune = Callable[[onnx.ModelProto, Arrays, float], onnx.ModelProto]

SPARSITIES = (0.5, 0.7, 0.8, 0.9)
BATCH = 64
TEXT = """\
# Accuracy beside onnxsim

onnx-sipp with default settings beside the pruning of onnxsim {onnxsim} (magnitude, Wanda,
SparseGPT), in one run, on the same calibration samples. Nothing is retrained, and no labels are
used.

- *accuracy*: share of the test samples that the pruned model gets right, in per cent;
- *error*: ‖pruned − dense‖ / ‖dense‖ of the model's output, on the test samples, which took no part
  in pruning;
- *zeros*: share of zeros among the weights that onnx-sipp prunes, whichever tool made them;
- *seconds*: wall time of one run, all of it, on {cores} cores ({machine}) of a shared machine,
  where other work slows some runs down.

onnx-sipp meets the sparsity over all weights together and shares it out by itself. onnxsim gives
every layer the same share, row by row (magnitude, Wanda) or block by block (SparseGPT), rounded.
The best of each sparsity is bold.

{tables}Made by `{command}` with onnx-sipp {version}, onnxruntime {ort}, numpy {numpy}.
"""
WIDE_TEXT = """\
One layer without a bias. {n:,} calibration rows and as many fresh ones for the error; 256 shared
factors and noise make the features, each scaled by exp of a normal number.
"""


@dataclass(frozen=True)
class Case:
    """A model with its data; ``labels`` is None where there are no classes."""

    title: str
    model: onnx.ModelProto
    calib: Arrays
    test: Arrays
    labels: NDArray[np.generic] | None
    note: str = ""


@dataclass(frozen=True)
class Result:
    """What one run gave; shares, not per cent."""

    accuracy: float
    error: float
    zeros: float
    seconds: float


def load_case(title: str, model: str | Path, calib: str | Path, test: str | Path) -> Case:
    """Reads a model, and ``.npz`` files of calibration and of test data with ``labels``."""
    with np.load(calib) as data:
        samples = dict(data)
    with np.load(test) as data:
        fresh = dict(data)
    return Case(title, onnx.load(model), samples, fresh, fresh.pop("labels"))


def wide_case(n: int) -> Case:
    """Makes a MatMul of n×n whose input features are correlated and scaled log-normally."""
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((n, n)) / np.sqrt(n)).astype(np.float32)
    factors = rng.standard_normal((256, n))
    scale = np.exp(rng.standard_normal(n))

    def rows(seed: int) -> Arrays:
        own = np.random.default_rng(seed)
        shared = own.standard_normal((n, 256)) @ factors / 16
        return {"x": ((shared + 0.5 * own.standard_normal((n, n))) * scale).astype(np.float32)}

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y"], name="matmul")],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", n])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", n])],
        [numpy_helper.from_array(weight, "W")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    title = f"MatMul {n}×{n} (made-up rows)"
    return Case(title, model, rows(1), rows(2), None, WIDE_TEXT.format(n=n) + "\n")


def ours(model: onnx.ModelProto, calib: Arrays, sparsity: float) -> onnx.ModelProto:
    """Prunes by onnx-sipp with default settings, on all samples."""
    count = len(next(iter(calib.values())))
    return onnx_sipp.prune(model, calib, sparsity=sparsity, num_samples=count).model


def feeds(calib: Arrays) -> list[Arrays]:
    """Returns the samples as onnxsim takes them."""
    count = len(next(iter(calib.values())))
    starts = range(0, count, BATCH)
    return [{name: rows[start : start + BATCH] for name, rows in calib.items()} for start in starts]


def wanda(model: onnx.ModelProto, calib: Arrays, sparsity: float) -> onnx.ModelProto:
    """Prunes by onnxsim's Wanda, on all samples."""
    data = feeds(calib)
    pruned: onnx.ModelProto = apply_wanda_pruning(model, data, len(data), sparsity=sparsity)
    return pruned


def sparsegpt(model: onnx.ModelProto, calib: Arrays, sparsity: float) -> onnx.ModelProto:
    """Prunes by onnxsim's SparseGPT, on all samples."""
    data = feeds(calib)
    pruned: onnx.ModelProto = apply_sparsegpt_pruning(model, data, len(data), sparsity=sparsity)
    return pruned


TOOLS: dict[str, Prune] = {
    "onnx-sipp": ours,
    "onnxsim magnitude": lambda model, _, sparsity: apply_magnitude_pruning(model, sparsity),
    "onnxsim Wanda": wanda,
    "onnxsim SparseGPT": sparsegpt,
}


def outputs(model: onnx.ModelProto, test: Arrays) -> NDArray[np.float64]:
    """Returns the model's first output on all test samples."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # onnxsim leaves the old weights in the model
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    parts = [np.asarray(session.run(None, feed)[0], np.float64) for feed in feeds(test)]
    return np.concatenate(parts)


def weight_owners(model: onnx.ModelProto) -> list[str]:
    """Returns one node per prunable weight; onnxsim keeps the names of nodes, not of weights."""
    return list({layer.weight: layer.name for layer in onnx_sipp.inspect(model).layers}.values())


def zero_share(model: onnx.ModelProto, owners: Sequence[str]) -> float:
    """Returns the share of zeros among the weights of the nodes."""
    found = {layer.name: layer for layer in onnx_sipp.inspect(model).layers}
    chosen = [found[name] for name in owners]
    return sum(layer.zeros for layer in chosen) / sum(layer.parameters for layer in chosen)


def judge(case: Case, pruned: onnx.ModelProto, dense: NDArray[np.float64]) -> tuple[float, float]:
    """Returns the accuracy, nan without labels, and the relative error on the test samples.

    Args:
        case: The model and its data.
        pruned: The pruned model.
        dense: The output of the model before.
    """
    scores = outputs(pruned, case.test)
    error = float(np.linalg.norm(scores - dense) / np.linalg.norm(dense))
    return accuracy(case, scores), error


def accuracy(case: Case, scores: NDArray[np.float64]) -> float:
    """Returns the share of the test samples with the largest score at the label."""
    if case.labels is None:
        return float("nan")
    return float(np.mean(scores.argmax(axis=1) == case.labels))


def measure(case: Case, sparsities: Sequence[float]) -> str:
    """Prunes a model by every tool.

    Args:
        case: The model and its data.
        sparsities: Shares of zeros to ask for.

    Returns:
        The section about it.
    """
    dense = outputs(case.model, case.test)
    owners = weight_owners(case.model)
    lines = []
    for sparsity in sparsities:
        results: dict[str, Result] = {}
        for name, prune in TOOLS.items():
            start = time.perf_counter()
            pruned = prune(case.model, case.calib, sparsity)
            took = time.perf_counter() - start
            results[name] = Result(*judge(case, pruned, dense), zero_share(pruned, owners), took)
            print(f"{case.title}: {sparsity:.0%}: {name}: {results[name]}", flush=True)
        lines += table_lines(sparsity, results, with_accuracy=case.labels is not None)
    before = f"Dense: {100 * accuracy(case, dense):.1f} %.\n\n" if case.labels is not None else ""
    header = ["sparsity", "tool", *(["accuracy"] if before else []), "error", "zeros", "seconds"]
    return f"## {case.title}\n\n{case.note}{before}{markdown(header, lines)}\n"


def table_lines(
    sparsity: float, results: dict[str, Result], *, with_accuracy: bool
) -> list[list[str]]:
    """Returns the rows of one sparsity; the best accuracy and the smallest error are bold."""
    highest = max(round(result.accuracy, 3) for result in results.values())
    lowest = min(result.error for result in results.values())
    lines = []
    for name, result in results.items():
        line = [f"{sparsity:.0%}", name]
        if with_accuracy:
            line.append(bold(f"{100 * result.accuracy:.1f}", round(result.accuracy, 3) == highest))
        line += [
            bold(f"{result.error:.3f}", result.error == lowest),
            f"{100 * result.zeros:.1f} %",
            f"{result.seconds:.{1 if result.seconds > 1 else 3}f}",
        ]
        lines.append(line)
    return lines


def bold(text: str, best: bool) -> str:
    """Returns the text, bold if it is the best."""
    return f"**{text}**" if best else text


def command(script: str) -> str:
    """Returns the command that was run, without the folders of this machine."""
    words = [Path(word).name if os.sep in word else word for word in sys.argv[1:]]
    return shlex.join(["python", f"tools/{script}", *words])


def write(out: Path, sections: Sequence[str]) -> None:
    """Writes the page with what has been measured so far."""
    text = TEXT.format(
        onnxsim=version("onnxsim"),
        cores=os.cpu_count(),
        machine=platform.machine(),
        tables="".join(sections),
        command=command("bench_accuracy.py"),
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
    parser.add_argument("--wide", type=int, metavar="N", help="also a MatMul of N×N")
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results-accuracy.md")
    arguments = parser.parse_args()
    calib, test = (MODELS / f"digits-{part}.npz" for part in ("calib", "test"))
    cases = [load_case(t, MODELS / f"{name}.onnx", calib, test) for t, name in OURS.items()]
    cases += [load_case(*files) for files in arguments.also]
    cases += [wide_case(arguments.wide)] if arguments.wide else []
    sections: list[str] = []
    for case in cases:
        sections.append(measure(case, arguments.sparsities))
        write(arguments.out, sections)


if __name__ == "__main__":
    main()
