"""Prunes and refits a large model within given memory, and checks what comes out.

Makes a model with ``make_large.py``, prunes it by the command line in a process of its own for each
limit, and prints peak memory, time, and the error of the outputs. The result must load in
onnxruntime and hold exactly as many zeros as were asked for.

    python tools/bench_large.py [--gigabytes 3] [--limits 600MB 1GB default] [-- OPTIONS]

Needs about four times the size of the model in ``--folder``. Exits with 1 if a limit is exceeded by
more than 10 %, or the output is wrong.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from bench_memory import peak_memory
from make_large import WIDTHS, chain, samples, write_model

from onnx_sipp.cli.values import byte_size
from onnx_sipp.graph.model import Model
from onnx_sipp.memory import DEFAULT_LIMIT

TOLERANCE = 1.10
DEFAULT = "default"
HEAD = "| memory limit | peak memory | seconds | error of the outputs | zeros |"


@dataclass(frozen=True)
class Run:
    """One run: what was allowed, and what it took."""

    limit: str
    peak: float
    seconds: float
    error: float
    zeros: int
    wanted: int

    @property
    def allowed(self) -> float:
        """The limit in MiB."""
        size = DEFAULT_LIMIT if self.limit == DEFAULT else byte_size(self.limit)
        return size / 2**20

    @property
    def row(self) -> str:
        """As a row of the table."""
        limit = f"{self.allowed:,.0f} MiB" + (" (default)" if self.limit == DEFAULT else "")
        cells = [limit, f"{self.peak:,.0f} MiB", f"{self.seconds:,.0f}", f"{self.error:.4f}"]
        return f"| {' | '.join([*cells, f'{self.zeros:,}'])} |"

    @property
    def is_right(self) -> bool:
        """Whether the limit was kept and the number of zeros is that asked for."""
        return self.peak <= TOLERANCE * self.allowed and self.zeros == self.wanted


def prune(folder: Path, limit: str, sparsity: float, options: Sequence[str]) -> Run:
    """Prunes the model in a process of its own, and looks at the output."""
    report, output = folder / "report.json", folder / "pruned.onnx"
    command = [sys.executable, "-m", "onnx_sipp", str(folder / "large.onnx"), str(output)]
    command += ["--calib", str(folder / "calib.npz"), "--sparsity", str(sparsity)]
    command += ["--workdir", str(folder), "--json", str(report), *options]
    command += [] if limit == DEFAULT else ["--memory-limit", limit]
    peak, seconds = peak_memory(command)
    found = json.loads(report.read_text())
    run = Run(
        limit, peak, seconds, found["outputs"][0]["relative_error"],
        count_zeros(output), round(sparsity * found["prunable"]),
    )  # fmt: skip
    load(output, np.load(folder / "calib.npz")["x"][:4])
    for file in (output, output.with_name(f"{output.name}.data")):
        file.unlink()
    return run


def count_zeros(path: Path) -> int:
    """Counts zeros in the weights of a model, one of them in memory at a time."""
    model = Model.load(path)
    weights = [name for name, tensor in model.stored.items() if len(tensor.dims) == 2]
    return sum(int(np.count_nonzero(model.read(name) == 0)) for name in weights)


def load(path: Path, x: np.ndarray) -> None:
    """Loads a model into onnxruntime and runs it."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": x})
    if not np.isfinite(result).all():
        raise RuntimeError(f"{path} gives values that are not finite")


def main() -> int:
    """Measures and prints.

    Returns:
        0, or 1 if something is not as it should be.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--limits", nargs="+", default=["600MB", "1GB", DEFAULT])
    parser.add_argument("--folder", type=Path, help="for the files; a temporary one by default")
    parser.add_argument("options", nargs="*", help="more options of `onnx-sipp`, after --")
    arguments = parser.parse_args()
    layers = chain(arguments.widths, int(arguments.gigabytes * 1e9))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        count = write_model(folder / "large.onnx", layers, 0)
        np.savez(folder / "calib.npz", x=samples(arguments.samples, layers[0][0], 0))
        print(f"{len(layers)} layers, {count:,} weights, {4 * count / 1e9:.2f} GB\n\n{HEAD}")
        print(f"|{' ---: |' * HEAD.count(' | ')} ---: |", flush=True)
        runs = []
        for limit in arguments.limits:
            runs.append(prune(folder, limit, arguments.sparsity, arguments.options))
            print(runs[-1].row, flush=True)
    return int(not all(run.is_right for run in runs))


if __name__ == "__main__":
    sys.exit(main())
