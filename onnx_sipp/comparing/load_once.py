"""A program that loads one model and runs it once; its process is what is measured.

It imports nothing but onnxruntime and numpy, so that its memory is that of a plain user of the
model.

    python load_once.py MODEL THREADS PROVIDERS FEED.npz [LIBRARY ...]
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

__all__ = ["main"]


def main(path: str, threads: str, providers: str, feed: str, *libraries: str) -> None:
    """Load, run, and print seconds and bytes as JSON."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = int(threads)
    for library in libraries:
        options.register_custom_ops_library(library)
    before = peak_bytes()
    start = time.perf_counter()
    session = ort.InferenceSession(path, options, providers=providers.split(","))
    seconds = time.perf_counter() - start
    session.run(None, dict(np.load(feed, allow_pickle=False)))
    found = {"seconds": seconds, "base_bytes": before, "peak_bytes": peak_bytes()}
    sys.stdout.write(json.dumps(found) + "\n")


def peak_bytes() -> int:
    """The most memory that the process has had.

    Linux hands the peak that `getrusage` tells down from the parent process, so its own record is
    read there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main(*sys.argv[1:])
