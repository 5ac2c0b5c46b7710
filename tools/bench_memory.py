"""Measures how the peak memory of the command line grows with the number of samples.

Prunes one model twice (or more often), each time in a process of its own, with calibration data
of different lengths made by jittering given samples. The data lies uncompressed in a ``.npz``.

    python tools/bench_memory.py [--model M.onnx --calib DATA.npz] [--samples 256 4096] [-- OPTIONS]

Exits with 1 if the most samples take over 10 % more memory than the fewest.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

MODELS = Path(__file__).resolve().parents[1] / "models"
LARGEST_RATIO = 1.10


def write_samples(source: Path, target: Path, count: int) -> None:
    """Writes as many samples as asked for: those given, over and over, with noise added.

    Args:
        source: The ``.npz`` with the samples to start from.
        target: The ``.npz`` to write, a piece at a time.
        count: The number of samples.
    """
    rng = np.random.default_rng(0)
    given = np.load(source)
    with zipfile.ZipFile(target, "w") as archive:
        for name in given.files:
            array = given[name]
            header = {
                "descr": np.lib.format.dtype_to_descr(array.dtype),
                "fortran_order": False,
                "shape": (count, *array.shape[1:]),
            }
            with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                np.lib.format.write_array_header_2_0(out, header)
                for start in range(0, count, len(array)):
                    piece = array[: count - start]
                    if piece.dtype.kind == "f":
                        noise = rng.normal(0, 0.02, piece.shape)
                        piece = (piece + noise).astype(array.dtype)
                    out.write(np.ascontiguousarray(piece).tobytes())


def peak_memory(command: list[str]) -> tuple[float, float]:
    """Runs a command and returns its peak resident memory in MiB and its seconds.

    Args:
        command: The command and its arguments.

    Returns:
        The peak of the process (not of all its children, as the shell's tools would say).

    Raises:
        RuntimeError: The command failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit / 2**20, time.perf_counter() - start


def main() -> int:
    """Measures and prints.

    Returns:
        0, or 1 if memory grows.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODELS / "lenet5.onnx")
    parser.add_argument("--calib", type=Path, default=MODELS / "digits-calib.npz")
    parser.add_argument("--samples", type=int, nargs="+", default=[256, 4096])
    parser.add_argument("options", nargs="*", help="more options of `onnx-sipp`, after --")
    arguments = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for count in sorted(arguments.samples):
            data = Path(folder) / f"{count}.npz"
            write_samples(arguments.calib, data, count)
            command = [sys.executable, "-m", "onnx_sipp", str(arguments.model)]
            command += [str(Path(folder) / "out.onnx"), "--calib", str(data)]
            command += ["--num-samples", str(count), *arguments.options]
            peak, seconds = peak_memory(command)
            peaks.append(peak)
            print(f"{count:6d} samples: {peak:7.1f} MiB, {seconds:6.1f} s")
    ratio = peaks[-1] / peaks[0]
    print(f"ratio {ratio:.3f} (at most {LARGEST_RATIO})")
    return int(ratio > LARGEST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
