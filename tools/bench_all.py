"""Measures what a run costs: beside others, beside formulas, as models grow, beside the machine.

    python tools/bench_all.py --out docs/results-speed.md

Prints the page, and with ``--out`` writes it, with a plot of the same name (``.svg``) beside it.
Works that are compared follow each other, round after round, and medians count. Nothing else should
run meanwhile. All sizes are arguments, so that a small run takes seconds.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from bench.formula import costs
from bench.limits import reached
from bench.page import Measured, page
from bench.plot import drawn
from bench.rivals import RIVALS, compared
from bench.scaling import Sizes, curves, mlp
from bench.timing import Effort, told
from bench_accuracy import Case, load_case, wide_case
from make_large import samples
from table_methods import MODELS, OURS

from onnx_sipp.options import available_threads

CALIB, TEST = (MODELS / f"digits-{part}.npz" for part in ("calib", "test"))
# Neurons, inputs, samples, patches of a sample.
LAYERS = ["300x784x256x1", "50x500x64x64", "64x576x64x64", "512x512x32x16"]
PLOT = "results-speed.svg"


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--out", type=Path, help="page to write, its plot beside it")
    add("--folder", type=Path, help="for large files; a temporary one by default")
    add("--repeats", type=int, default=3, help="rounds of everything, at most")
    add("--patience", type=float, default=15, help="seconds after which no round begins")
    add(
        "--limit", type=float, default=30, help="seconds that a growing run may be expected to take"
    )
    add("--models", nargs="*", choices=list(OURS.values()), default=list(OURS.values()))
    add("--wide", type=int, default=1024, help="size of the MatMul beside other tools, 0 for none")
    add("--layers", nargs="+", default=LAYERS, metavar="OUTxINxSAMPLESxPATCHES")
    add("--samples", nargs="+", type=int, default=[256, 512, 1024, 2048, 4096])
    add("--widths", nargs="+", type=int, default=[64, 128, 256, 512, 1024])
    add("--depths", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    add("--narrow", type=int, default=256, help="width while samples grow; twice that of depths")
    add("--part", type=int, default=1024, help="width of the layer beside the machine's limits")
    add("--peak", type=int, default=4096, help="size of the plain matrix product")
    add("--megabytes", type=float, default=256, help="of the files that are read and written")
    return parser.parse_args(words)


def cases(models: Sequence[str], wide: int) -> list[Case]:
    """Returns the models that all tools prune, with their data."""
    titles = {name: title for title, name in OURS.items()}
    found = [load_case(titles[name], MODELS / f"{name}.onnx", CALIB, TEST) for name in models]
    return found + ([wide_case(wide)] if wide else [])


def warm_up() -> None:
    """Prunes a very small model by every tool: what is compiled and loaded does not count."""
    for rival in RIVALS:
        rival.prune(mlp(16, 2), {"x": samples(64, 16, 0)}, 0.5)


def measured(given: argparse.Namespace) -> Measured:
    """Measures everything."""
    told("warming up")
    warm_up()
    effort = Effort(given.repeats, given.patience)
    sizes = Sizes(given.samples, given.widths, given.depths, given.narrow, given.limit)
    shapes = [[int(size) for size in layer.split("x")] for layer in given.layers]
    return Measured(
        rivals=compared(cases(given.models, given.wide), effort),
        formula=costs(shapes, effort),
        curves=curves(sizes, effort),
        limits=reached(
            given.part, given.peak, int(given.megabytes * 1e6), available_threads(), given.folder,
            effort,
        ),
    )  # fmt: skip


def command(given: argparse.Namespace) -> list[str]:
    """Returns the arguments that are not the default, without places on this machine."""
    default = vars(parsed([]))
    words = []
    for name, value in vars(given).items():
        if name not in {"out", "folder"} and value != default[name]:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *(f"{v:g}" if isinstance(v, float) else str(v) for v in values)]
    return [*words, "--out", "docs/results-speed.md"]


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    given = parsed(words)
    load = os.getloadavg()[0]
    found = measured(given)
    plot = given.out.with_suffix(".svg") if given.out else Path(PLOT)
    text = page(
        found, plot.name, command(given), load=load, repeats=given.repeats,
        patience=given.patience, limit=given.limit, threads=available_threads(),
    )  # fmt: skip
    print(text, end="")
    if given.out:
        given.out.write_text(text, encoding="utf-8")
        plot.write_text(drawn(found.curves), encoding="utf-8")


if __name__ == "__main__":
    main()
