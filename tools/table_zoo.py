"""Prunes every model of a folder by default settings and writes what came of it as Markdown.

    python tools/table_zoo.py FOLDER [--sparsity 0.5] [--options OPTIONS.json] [--only GLOB]

Writes ``docs/results-zoo.md``, anew after every model; with ``--only`` it prints the lines alone.

Each file is pruned in a process of its own, on made-up inputs, and the result is loaded. Inputs
that need help to be valid (a length that the model bounds, say) get it from a JSON file with
options of `onnx_sipp.prune` by the file's stem: ``{"gpt2": {"input_shapes": {"past": [3]}}}``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import onnxruntime as ort

import onnx_sipp

# Operators that weigh a constant, but not as a matrix: their constants are none to be reached.
NO_MATRICES = {
    "BatchNormalization", "Div", "Gather", "GroupNormalization", "InstanceNormalization",
    "LayerNormalization", "Mul", "PRelu", "RMSNormalization",
}  # fmt: skip
PAGE = Path(__file__).parents[1] / "docs" / "results-zoo.md"
TEXT = """\
# Files from the wild

{count} ONNX files that others made, each pruned in a process of its own at {sparsity:.0%} by
default settings on made-up inputs (the output errors say little about real data), and loaded again.

- *reached*: parameters that can be pruned, of all that multiply as a matrix;
- *skipped*: those that cannot, and why;
- *zeros*: share of zeros among what was reached, or why the file was refused;
- *seconds*: wall time on {cores} cores of a shared machine, start of the process included;
- *MiB*: the most memory that the process had.

Reached over all files that are not refused: {reached:,} of {total:,} parameters ({share:.2%}).

{table}
Made by `python tools/table_zoo.py FOLDER --sparsity {sparsity} --options OPTIONS.json`; the options
give some of the files inputs that they can take.
"""
HEADER = [
    "file",
    "layers",
    "reached",
    "skipped",
    "zeros",
    "output error",
    "seconds",
    "CPU seconds",
    "MiB",
]


def prune_one(path: str, target: str, options: str) -> None:
    """Prunes a file, loads the result, and prints as JSON what came of it.

    Args:
        path: The model.
        target: Where the result goes.
        options: Of `onnx_sipp.prune`, as JSON.
    """
    try:
        result = onnx_sipp.prune(path, **json.loads(options))
    except onnx_sipp.SippError as error:
        print(json.dumps({"refused": str(error).splitlines()[0]}))
        return
    report = result.save(target)
    session = ort.SessionOptions()
    session.log_severity_level = 4
    ort.InferenceSession(target, session, providers=["CPUExecutionProvider"])
    errors = [o.relative_error for o in report.outputs if o.relative_error is not None]
    print(json.dumps({"sparsity": report.sparsity, "error": max(errors, default=None)}))


def measured(path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Runs `prune_one` in a process of its own.

    Args:
        path: The model.
        options: Of `onnx_sipp.prune`.

    Returns:
        What it printed (or ``failed``), with ``seconds``, ``cpu`` of them spent by processors, and
        ``mib``, the peak resident memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        target, log = Path(folder) / "out.onnx", Path(folder) / "log"
        arguments = [str(path), str(target), json.dumps(options)]
        start = time.perf_counter()
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, __file__, "--one", *arguments], stdout=out, stderr=out
            )
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        lines = log.read_text(encoding="utf-8").strip().splitlines() or [f"status {status}"]
        found = {"failed": lines[-1]} if process.returncode else json.loads(lines[-1])
    unit = 1 if sys.platform == "darwin" else 1024
    seconds = time.perf_counter() - start
    cpu = usage.ru_utime + usage.ru_stime
    return {**found, "seconds": seconds, "cpu": cpu, "mib": usage.ru_maxrss * unit / 2**20}


def row_of(path: Path, folder: Path, options: dict[str, Any]) -> tuple[list[str], int, int]:
    """Makes one line of the table.

    Args:
        path: The model.
        folder: That the table is about.
        options: Of `onnx_sipp.prune`.

    Returns:
        The cells; and of the parameters of a file that was pruned, those reached, and all.
    """
    seen = onnx_sipp.inspect(path)
    lost = [s for s in seen.skipped if s.op_type not in NO_MATRICES]
    total = seen.prunable + sum(s.parameters for s in lost)
    reasons = Counter(s.reason.replace("|", "\\|") for s in lost)
    skipped = "; ".join(f"{count} × {reason}" for reason, count in reasons.items())
    found = measured(path, options)
    told = found.get("refused") or found.get("failed")
    error = found.get("error")
    cells = [
        str(path.relative_to(folder)),
        str(len(seen.layers)),
        f"{seen.prunable:,} of {total:,} ({seen.prunable / total:.1%})" if total else "0 of 0",
        skipped,
        told.replace("|", "\\|") if told else f"{found['sparsity']:.4%}",
        "" if error is None else f"{error:.3g}",
        f"{found['seconds']:.1f}",
        f"{found['cpu']:.1f}",
        f"{found['mib']:.0f}",
    ]
    return (cells, 0, 0) if told else (cells, seen.prunable, total)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--options", type=Path, help="JSON file, see above")
    parser.add_argument("--only", default="*", help="glob over stems")
    arguments = parser.parse_args()
    extra = json.loads(arguments.options.read_text()) if arguments.options else {}
    lines = ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    reached = total = 0
    for path in sorted(arguments.folder.rglob("*.onnx")):
        if fnmatchcase(path.stem, arguments.only):
            options = {"sparsity": arguments.sparsity, **extra.get(path.stem, {})}
            cells, found, of = row_of(path, arguments.folder, options)
            lines.append("| " + " | ".join(cells) + " |")
            reached, total = reached + found, total + of
            print(lines[-1], flush=True)
            if arguments.only == "*":
                text = TEXT.format(
                    count=len(lines) - 2, sparsity=arguments.sparsity, cores=os.cpu_count(),
                    reached=reached, total=total, share=reached / max(1, total),
                    table="\n".join(lines) + "\n",
                )  # fmt: skip
                PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        prune_one(*sys.argv[2:])
    else:
        main()
