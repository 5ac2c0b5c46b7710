"""Shows that more calibration samples, or more rounds, do not make the result worse.

    python tools/monotone.py

Prunes the models of ``models/`` with several random subsets of the calibration images, and writes
``docs/results-monotone.md``, anew after every model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from table_methods import MODELS, OURS, ROOT

import onnx_sipp

SAMPLES = (32, 128, 512)
ROUNDS = (1, 2, 4)
SEEDS = range(5)
TEXT = """\
# More samples, more rounds

Relative error of the logits on the test images, ‖pruned − dense‖ / ‖dense‖, at {sparsity:.0%}
sparsity with the default method: mean and standard deviation over {seeds} seeds. A seed picks the
calibration images at random (a fifth of them held out) and seeds everything else.

{tables}
Made by `python tools/monotone.py` with onnx-sipp {version}.
"""


def logits(model: bytes, images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Run a model on all images."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": images})[0], np.float64)


def errors(
    name: str, images: NDArray[np.float32], test: NDArray[np.float32], options: dict[str, Any]
) -> list[float]:
    """Relative error on the test images, per seed."""
    path = MODELS / f"{name}.onnx"
    dense = logits(path.read_bytes(), test)
    found = []
    for seed in SEEDS:
        count = options.get("num_samples", len(images))
        chosen = np.random.default_rng(seed).permutation(len(images))[:count]
        result = onnx_sipp.prune(path, images[chosen], seed=seed, **options)
        pruned = logits(result.model.SerializeToString(), test)
        found.append(float(np.linalg.norm(pruned - dense) / np.linalg.norm(dense)))
    return found


def table(title: str, heads: Sequence[Any], rows: dict[str, list[list[float]]]) -> str:
    """A markdown table of mean ± standard deviation."""
    lines = [
        f"| {title} | " + " | ".join(map(str, heads)) + " |",
        "| --- " * (len(heads) + 1) + "|",
    ]
    for name, cells in rows.items():
        shown = [f"{np.mean(cell):.4f} ± {np.std(cell, ddof=1):.4f}" for cell in cells]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sparsity", type=float, default=0.8)
    sparsity = parser.parse_args().sparsity
    images = np.load(MODELS / "digits-calib.npz")["input"]
    test = np.load(MODELS / "digits-test.npz")["input"]
    by_samples: dict[str, list[list[float]]] = {}
    by_rounds: dict[str, list[list[float]]] = {}
    for title, name in OURS.items():
        by_samples[title] = [
            errors(name, images, test, {"sparsity": sparsity, "num_samples": count})
            for count in SAMPLES
        ]
        by_rounds[title] = [
            errors(name, images, test, {"sparsity": sparsity, "rounds": rounds})
            for rounds in ROUNDS
        ]
        print(title, by_samples[title], by_rounds[title], flush=True)
        page = TEXT.format(
            sparsity=sparsity,
            seeds=len(SEEDS),
            tables=f"{table('samples', SAMPLES, by_samples)}\n{table('rounds', ROUNDS, by_rounds)}",
            version=onnx_sipp.__version__,
        )
        (ROOT / "docs" / "results-monotone.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
