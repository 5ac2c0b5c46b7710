"""Cuts channels out of every model of a folder and writes what came of it as Markdown.

    python tools/table_channels.py FOLDER [--macs 0.5] [--options OPTIONS.json] [--only GLOB]

Writes ``docs/results-channels-zoo.md``, anew after every model; with ``--only`` it prints the same
of these files alone.

Each file is cut in a process of its own, on made-up inputs; where so little may not stay, more may:
0.75, 0.9. The result is loaded and run, and its inputs and outputs are compared with those of the
original. Inputs that need help to be valid get it from a JSON file with options of
`onnx_sipp.prune` by the file's stem.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import onnx

import onnx_sipp

PAGE = Path(__file__).parents[1] / "docs" / "results-channels-zoo.md"
TEXT = """\
# Channels cut out of files from the wild

`--pattern channels --macs {macs}` on {count} ONNX files that others made, each in a process of its
own, on made-up inputs (the output errors say little about real data). Where so little may not stay,
0.75 or 0.9 of the multiply-adds may. The result is loaded and run again.

- *groups*: sets of channels, units or heads that can only be cut together; *cut*: those of which
  some were;
- *multiply-adds*, *parameters*: share that is left;
- *seconds*: wall time on {cores} cores of a shared machine, start of the process included; no file
  may take more than {limit:.0f}.

{table}
## Group by group

How many are kept, and why where all are; a width is the number of channels that go at once.

{groups}
Made by `python tools/table_channels.py FOLDER --macs {macs} --options OPTIONS.json`; the options
give some of the files inputs that they can take.
"""
HEADER = ["file", "groups", "cut", "multiply-adds", "parameters", "same in- and outputs",
          "output error", "seconds"]  # fmt: skip


def signature(path: str) -> list[bytes]:
    """What a model takes and gives."""
    graph = onnx.load(path, load_external_data=False).graph
    inner = {tensor.name for tensor in graph.initializer}
    values = [value for value in graph.input if value.name not in inner]
    return [value.SerializeToString() for value in (*values, *graph.output)]


def cut_one(path: str, target: str, options: str) -> None:
    """Cuts a file, loads the result, and prints as JSON what came of it.

    Args:
        path: The model.
        target: Where the result goes.
        options: Of `onnx_sipp.prune`, as JSON.
    """
    given = json.loads(options)
    refused = ""
    for macs in [m for m in (given.pop("macs"), 0.75, 0.9) if m]:
        try:
            result = onnx_sipp.prune(path, pattern="channels", macs=macs, **given)
        except onnx_sipp.SippError as error:
            refused = str(error)
            if refused.startswith("not so much"):
                continue
            break
        report = result.save(target)
        errors = [o.relative_error for o in report.outputs if o.relative_error is not None]
        found = json.loads(report.to_json())["cut"]
        found["error"] = max(errors, default=None)
        found["same"] = signature(path) == signature(target)
        print(json.dumps(found))
        return
    print(json.dumps({"refused": refused}))


def measured(path: Path, options: dict[str, Any], limit: float) -> dict[str, Any]:
    """Runs `cut_one` in a process of its own.

    Args:
        path: The model.
        options: Of `onnx_sipp.prune`.
        limit: Seconds it may take.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(path), str(Path(folder) / "out.onnx"), json.dumps(options)]
        command = [sys.executable, __file__, "--one", *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"takes more than {limit:.0f} s", "seconds": limit}
    lines = done.stdout.strip().splitlines()
    found: dict[str, Any] = {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    if done.returncode == 0 and lines:
        found = json.loads(lines[-1])
    found["seconds"] = time.perf_counter() - start
    return found


def row(name: str, found: dict[str, Any]) -> list[str]:
    """A line of the table."""
    if "groups" not in found:
        why = found.get("refused") or found["failed"]
        first, *reasons = [line.strip() for line in why.splitlines()]
        counted = Counter(reason.split(": ", 1)[-1] for reason in reasons)
        text = "; ".join([first, *counted])
        return [name, "", "", "", "", "", text.replace("|", "\\|"), f"{found['seconds']:.0f}"]
    groups = found["groups"]
    cut = sum(group["kept"] < group["units"] for group in groups)
    error = "" if found["error"] is None else f"{found['error']:.3f}"
    return [
        name, f"{len(groups)}", f"{cut}",
        f"{found['macs_after'] / max(1, found['macs_before']):.2f}",
        f"{found['parameters_after'] / max(1, found['parameters_before']):.2f}",
        "yes" if found["same"] else "no", error, f"{found['seconds']:.0f}",
    ]  # fmt: skip


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def sections(found: Mapping[str, dict[str, Any]]) -> str:
    """Every coupled group of every file."""
    texts = []
    for name, result in found.items():
        rows = []
        for group in result.get("groups", []):
            width = f" × {group['width']}" if group["width"] > 1 else ""
            kept = f"{group['kept']} of {group['units']}{width}"
            rows.append([f"`{group['name']}`", kept, group["reason"].replace("|", "\\|")])
        if rows:
            texts.append(f"### {name}\n\n{table(['group', 'kept', 'why'], rows)}\n")
    return "".join(texts)


def main() -> None:
    """Writes the page."""
    if sys.argv[1:2] == ["--one"]:
        cut_one(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--options", type=Path)
    parser.add_argument("--only", help="glob of file names; prints instead of writing")
    parser.add_argument("--limit", type=float, default=240, help="seconds for a file")
    given = parser.parse_args()
    own = json.loads(given.options.read_text()) if given.options else {}
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(given.folder.rglob("*.onnx")):
        if given.only and not fnmatchcase(path.name, given.only):
            continue
        name = str(path.relative_to(given.folder))
        found[name] = measured(path, {"macs": given.macs, **own.get(path.stem, {})}, given.limit)
        rows = table(HEADER, (row(name, result) for name, result in found.items()))
        if given.only:
            print(rows + "\n" + sections(found))
            continue
        text = TEXT.format(
            macs=given.macs,
            count=len(found),
            cores=os.cpu_count(),
            limit=given.limit,
            table=rows,
            groups=sections(found),
        )
        PAGE.write_text(text, encoding="utf-8")
        print(name, f"{found[name]['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
