"""Trains sub-networks from their initial weights, with the masks of several methods.

    python tools/train_in_isolation.py --cifar labelled.npz unlabelled.npz
    python tools/train_in_isolation.py --page-only

The labelled file has ``input`` and ``labels``, the other one ``input``. Every run is kept in
``docs/results-isolation.json``, and what is there is not done again. Writes
``docs/results-isolation.md`` and ``.svg``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from isolation.page import page
from isolation.plot import drawn
from isolation.study import Runs
from isolation.summary import summaries
from isolation.tasks import CIFAR, DIGITS, cifar_images, digits_images

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    """Train what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar", nargs=2, type=Path, metavar="NPZ")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--page-only", action="store_true")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of page, plot and runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the networks are too small for more
    runs = Runs(arguments.out / "results-isolation.json")
    if not arguments.page_only:
        for task in DIGITS.values():
            runs.add(task, digits_images(), range(arguments.seeds))
        if arguments.cifar:
            runs.add(CIFAR, cifar_images(*arguments.cifar), range(arguments.seeds))
    found = summaries(runs.all)
    (arguments.out / "results-isolation.svg").write_text(drawn(found), encoding="utf-8")
    (arguments.out / "results-isolation.md").write_text(page(runs.all), encoding="utf-8")


if __name__ == "__main__":
    main()
