"""Output error of a pruned model of bytes on English text that it was not calibrated on.

The text is the help on Python's language topics, which every Python brings along. Half of the
topics calibrate, the others measure.

    python tools/bench_text.py model.onnx --sparsity 0.3 0.5
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

import onnx_sipp
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model

Bytes = NDArray[np.uint8]


def passages(length: int, *, fresh: bool) -> Iterator[Bytes]:
    """Successive pieces of text, ``[1, length]``, of every other topic."""
    names = sorted(topics)[int(fresh) :: 2]
    text = np.frombuffer("\n".join(topics[name] for name in names).encode(), np.uint8)
    for piece in text[: len(text) // length * length].reshape(-1, 1, length):
        yield np.ascontiguousarray(piece)


def chosen(length: int, count: int, *, fresh: bool) -> list[Bytes]:
    """So many pieces from all over the text."""
    found = list(passages(length, fresh=fresh))
    return [found[place] for place in np.linspace(0, len(found) - 1, count).astype(int)]


def outputs(model: bytes, inputs: list[Bytes]) -> NDArray[np.float64]:
    """The first output of a model for every input."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (name,) = [value.name for value in session.get_inputs()]
    return np.stack([session.run(None, {name: x})[0] for x in inputs]).astype(np.float64)


def main() -> None:
    """Prune by several methods and print what each costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="takes one tensor of bytes, [batch, length]")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.3, 0.5, 0.7])
    parser.add_argument("--methods", nargs="+", default=["mixed", "magnitude", "wanda"])
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--samples", type=int, default=128)
    options = parser.parse_args()

    model = Model.load(options.model)
    found = find_layers(lower(model))
    print(f"reached: {found.prunable} of {found.parameters} parameters "
          f"({found.prunable / found.parameters:.1%}), {len(found.layers)} layers")  # fmt: skip
    (value,) = [v for v in model.proto.graph.input if v.name not in model.stored]
    calibration = [{value.name: x} for x in chosen(options.length, options.samples, fresh=False)]
    fresh = chosen(options.length, options.samples, fresh=True)
    dense = outputs(options.model.read_bytes(), fresh)
    print(f"{'method':>10} {'sparsity':>9} {'error':>9} {'top-1':>7} {'seconds':>8}")
    for sparsity in options.sparsity:
        for method in options.methods:
            start = time.perf_counter()
            result = onnx_sipp.prune(options.model, calibration, sparsity=sparsity, method=method)
            taken = time.perf_counter() - start
            pruned = outputs(result.model.SerializeToString(), fresh)
            error = np.linalg.norm(pruned - dense) / np.linalg.norm(dense)
            agree = np.mean(pruned.argmax(-1) == dense.argmax(-1))
            zeros = result.report.zeros / result.report.prunable
            print(f"{method:>10} {zeros:9.2%} {error:9.4f} {agree:7.2%} {taken:8.1f}")


if __name__ == "__main__":
    main()
