"""Run the README's first command and put what it prints into the README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARK = "<!-- made by tools/update_readme.py -->\n"
WIDTH = "84"


def example() -> str:
    """What `onnx-sipp` prints for the README's example."""
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run(
            [
                *(sys.executable, "-m", "onnx_sipp"),
                *("models/lenet5.onnx", str(Path(folder) / "pruned.onnx")),
                *("--calib", "models/digits-calib.npz", "--sparsity", "0.7"),
            ],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": WIDTH},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return "\n".join(line.rstrip() for line in result.stdout.splitlines()) + "\n"


def main() -> None:
    """Rewrite the block after the mark."""
    readme = ROOT / "README.md"
    block = re.compile(re.escape(MARK) + r"```text\n.*?```\n", re.DOTALL)
    new = f"{MARK}```text\n{example()}```\n"
    readme.write_text(block.sub(lambda _: new, readme.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
