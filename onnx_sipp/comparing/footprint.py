"""Size of a model on disk, and what it takes to load it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnx_sipp.calibration.specs import Feed
from onnx_sipp.comparing import load_once
from onnx_sipp.comparing.spread import median_and_spread
from onnx_sipp.errors import SippError
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.payloads import COPY_BYTES
from onnx_sipp.report.comparison import Footprint

__all__ = ["Loading", "measure_footprints", "zstd_bytes"]

ZSTD_LEVEL = 9
_LOADS = 5
_ENOUGH_SECONDS = 30.0


@dataclass(frozen=True)
class Loading:
    """How models are loaded.

    Attributes:
        feed: to run once.
        threads: of the runtime.
        providers: of the runtime.
        libraries: with operators that the runtime must load.
    """

    feed: Feed
    threads: int
    providers: Sequence[str]
    libraries: Sequence[Path] = ()

    def once(self, path: Path, feed_file: Path) -> dict[str, Any]:
        """Load a model in a new process; see `load_once`.

        Raises:
            SippError: it fails there.
        """
        command = [sys.executable, "-P", load_once.__file__, str(path), str(self.threads)]
        command += [",".join(self.providers), str(feed_file), *map(str, self.libraries)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise SippError(f"{str(path)!r} cannot be loaded and run in a process alone: {last}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def measure_footprints(paths: Sequence[Path], loading: Loading) -> list[Footprint]:
    """Measure models, each loaded several times in turn with the others.

    Args:
        paths: of the models.
        loading: how they are loaded.

    Raises:
        SippError: one cannot be loaded.
    """
    found: list[list[dict[str, Any]]] = [[] for _ in paths]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="onnx-sipp-") as folder:
        feed_file = Path(folder) / "feed.npz"
        arrays: dict[str, Any] = {**loading.feed}
        np.savez(feed_file, **arrays)
        for turn in range(_LOADS):
            order = range(len(paths)) if turn % 2 == 0 else range(len(paths) - 1, -1, -1)
            for index in order:
                found[index].append(loading.once(paths[index], feed_file))
            if time.monotonic() - started > _ENOUGH_SECONDS:
                break
    return [_footprint(path, loads) for path, loads in zip(paths, found, strict=True)]


def _footprint(path: Path, loads: list[dict[str, Any]]) -> Footprint:
    seconds, spread = median_and_spread([load["seconds"] for load in loads])
    files = Model.load(path).files
    return Footprint(
        bytes=sum(file.stat().st_size for file in files),
        bytes_zstd=sum(zstd_bytes(file) for file in files),
        load_seconds=seconds,
        load_spread=spread,
        peak_bytes=int(np.median([load["peak_bytes"] for load in loads])),
        base_bytes=int(np.median([load["base_bytes"] for load in loads])),
    )


def zstd_bytes(path: Path) -> int:
    """Bytes of a file when zstd has compressed it; nothing is written."""
    import zstandard  # noqa: PLC0415 - only where it is used

    size = 0
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj()
    with path.open("rb") as source:
        while piece := source.read(COPY_BYTES):
            size += len(compressor.compress(piece))
    return size + len(compressor.flush())
