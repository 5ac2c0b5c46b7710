"""Cuts channels out of models, times the results beside the originals, and writes the table.

    python tools/bench_channels.py
    python tools/bench_channels.py --also "ResNet20 (CIFAR-10)" resnet20.onnx calib.npz test.npz

The test file has the model's input and ``labels``. Both models run in turns in onnxruntime on one
thread, on batches of 16. Writes ``docs/results-channels.md``, anew after every line.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from table_methods import MODELS, ROOT, markdown

import onnx_sipp

GOALS = (0.75, 0.5, 0.4)
BATCH, RUNS = 16, 200
HEADER = ["asked", "multiply-adds", "parameters", "time", "accuracy", "agreement", "error",
          "seconds"]  # fmt: skip
TEXT = """\
# Channels cut out of the graph

`--pattern channels --macs M` on trained models, with the default options. Nothing is retrained, and
no labels are used.

- *multiply-adds*, *parameters*: share that is left of the dense model's;
- *time*: median time of a run over that of the dense model, in onnxruntime {ort} on one thread,
  batches of {batch}, both models in turns;
- *accuracy*: share of the test samples that the model gets right, in per cent;
- *agreement*: share of the test samples with the class that the dense model gives, in per cent;
- *error*: ‖cut − dense‖ / ‖dense‖ of the output on the test samples;
- *seconds*: wall time of the cutting, on a machine where other work was running.

{tables}Made by `{command}` with onnx-sipp {version}.
"""


def session(model: onnx.ModelProto) -> Any:
    """A session on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def outputs(runtime: Any, inputs: NDArray[Any]) -> NDArray[Any]:
    """First output for all samples."""
    name = runtime.get_inputs()[0].name
    batches = range(0, len(inputs), 100)
    return np.concatenate([runtime.run(None, {name: inputs[i : i + 100]})[0] for i in batches])


def time_ratio(dense: Any, cut: Any, batch: NDArray[Any]) -> float:
    """Median time of the one over that of the other."""
    name = dense.get_inputs()[0].name
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(RUNS):
        for runtime, own in zip((dense, cut), times, strict=True):
            start = time.perf_counter()
            runtime.run(None, {name: batch})
            own.append(time.perf_counter() - start)
    return median(times[1][10:]) / median(times[0][10:])


def measured(model: Path, calib: Path, test: Path, macs: float) -> list[str]:
    """A line of the table."""
    start = time.perf_counter()
    result = onnx_sipp.prune(model, calib, pattern="channels", macs=macs)
    seconds = time.perf_counter() - start
    data = np.load(test)
    labels = data["labels"]
    (inputs,) = (data[name] for name in data.files if name != "labels")
    runtimes = [session(onnx.load(model)), session(result.model)]
    before, after = (outputs(runtime, inputs) for runtime in runtimes)
    agreement = (before.argmax(1) == after.argmax(1)).mean()
    cut = result.report.cut
    assert cut is not None
    return [
        f"{macs}", f"{cut.macs_after / cut.macs_before:.2f}",
        f"{cut.parameters_after / cut.parameters_before:.2f}",
        f"{time_ratio(*runtimes, inputs[:BATCH]):.2f}",
        f"{100 * (after.argmax(1) == labels).mean():.1f}", f"{100 * agreement:.1f}",
        f"{np.linalg.norm(after - before) / np.linalg.norm(before):.3f}", f"{seconds:.0f}",
    ]  # fmt: skip


def dense_line(model: Path, test: Path) -> list[str]:
    """The line of the model as it is."""
    data = np.load(test)
    (inputs,) = (data[name] for name in data.files if name != "labels")
    found = outputs(session(onnx.load(model)), inputs)
    accuracy = (found.argmax(1) == data["labels"]).mean()
    return ["dense", "1", "1", "1", f"{100 * accuracy:.1f}", "100.0", "0", ""]


def main() -> None:
    """Cuts all models, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--also", nargs=4, action="append", default=[])
    given = parser.parse_args()
    digits = MODELS / "digits-calib.npz", MODELS / "digits-test.npz"
    names = {"LeNet5": "lenet5", "ResNet": "resnet_bn", "transformer": "transformer"}
    cases = [(title, MODELS / f"{name}.onnx", *digits) for title, name in names.items()]
    cases += [(title, *map(Path, files)) for title, *files in given.also]
    tables = ""
    for title, model, calib, test in cases:
        lines = [dense_line(model, test)]
        for macs in GOALS:
            try:
                lines.append(measured(model, calib, test, macs))
            except onnx_sipp.SippError as error:
                lines.append([f"{macs}: {error}".splitlines()[0], *[""] * 7])
            table = f"## {title}\n\n{markdown(HEADER, lines)}\n"
            text = TEXT.format(
                tables=tables + table, ort=ort.__version__, batch=BATCH,
                command=shlex.join(["python", "tools/bench_channels.py", *sys.argv[1:]]),
                version=onnx_sipp.__version__,
            )  # fmt: skip
            (ROOT / "docs" / "results-channels.md").write_text(text)
        tables += table


if __name__ == "__main__":
    main()
