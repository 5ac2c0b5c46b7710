"""Inputs to start from: one or more of every target, and the regressions that are kept."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

__all__ = ["REGRESSIONS", "regressions", "seeds"]

ROOT = Path(__file__).resolve().parents[2]
REGRESSIONS = ROOT / "tests" / "fuzzing" / "regressions"
# Of models to start from: reading a small one takes some milliseconds.
_MOST_BYTES = 1 << 17

CONFIG = b"""\
calib: samples.npz
sparsity: 0.8
exclude_op_types: [LSTM]
rules:
  - nodes: conv1
    exclude: true
  - op_types: [Gemm, MatMul]
    shapes: ["10x*"]
    sparsity: 0.3e0
  - &a {weights: fc1.*, floor: 0.1, candidates: [removal-cost]}
"""


def seeds(name: str, zoo: Path | None = None) -> list[bytes]:
    """Inputs that a target takes, for models those of the project and of a folder.

    Args:
        name: Of the target.
        zoo: A folder with more models.
    """
    return list(_of_target(name, zoo))


def regressions(name: str) -> list[Path]:
    """Inputs that a target once failed on."""
    return sorted((REGRESSIONS / name).glob("*"))


def _of_target(name: str, zoo: Path | None) -> Iterator[bytes]:
    if name == "model":
        for place in (ROOT / "models", *([zoo] if zoo else [])):
            for path in sorted(place.rglob("*.onnx")):
                if path.stat().st_size <= _MOST_BYTES:
                    yield path.read_bytes()
    elif name == "config":
        yield CONFIG
        yield b'{"sparsity": 0.5, "schema_version": 1, "options": {"sparsity": 0.7}}'
    elif name == "reference":
        yield b"w.data\n0\n64"
        yield b"./w.data\n\n"
    elif name == "array":
        yield _npy(np.ones((4, 3), np.float32))
        yield _npy(np.asfortranarray(np.ones((4, 3), np.float64)))
    else:
        x, i = np.ones((4, 3), np.float32), np.arange(4)
        arrays = {"fc": x > 0, "/conv": np.zeros((2, 2), np.bool_)} if name == "masks" else {}
        for save in (np.savez, np.savez_compressed):
            stream = io.BytesIO()
            save(stream, **(arrays or {"x": x, "i": i}))
            yield stream.getvalue()


def _npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()
