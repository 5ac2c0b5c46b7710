"""All runs of the experiment, kept in a file as they come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from isolation.methods import METHODS, Question
from isolation.tasks import Images, Task
from isolation.training import accuracy, train, weights_of

__all__ = ["DENSE", "INITS", "SPARSITIES", "Run", "Runs"]

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
# The weights that the methods look at; the sub-network always starts from the random ones.
INITS = ("random", "trained")
DENSE = "dense"


@dataclass(frozen=True)
class Run:
    """One network that was trained.

    Attributes:
        task: its name.
        seed: of its weights, of the order of the images, and of the method.
        init: one of `INITS`, or "" where the weights do not matter.
        method: key of `METHODS`, or `DENSE`.
        sparsity: share of the weights that were removed.
        accuracy: on the test images, in the end.
        kept: by layer, share of its weights that stayed.
    """

    task: str
    seed: int
    init: str
    method: str
    sparsity: float
    accuracy: float
    kept: dict[str, float]


class Runs:
    """Runs in a JSON file; those that are there are not repeated.

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        self.all = [Run(**row) for row in rows]

    def add(self, task: Task, images: Images, seeds: Sequence[int]) -> None:
        """Train what is missing of a task."""
        for seed in seeds:
            self._add_seed(task, images, seed)
            self._save()

    def _add_seed(self, task: Task, images: Images, seed: int) -> None:
        done = {
            (r.init, r.method, r.sparsity)
            for r in self.all
            if (r.task, r.seed) == (task.name, seed)
        }
        wanted = [
            (init, method, sparsity)
            for method in METHODS
            for init in ([""] if method == "random" else INITS)
            for sparsity in SPARSITIES
        ]
        missing = [row for row in wanted if row not in done]
        if not missing:
            return
        torch.manual_seed(seed)
        start = task.network()
        trained = deepcopy(start)
        train(trained, task, images, seed)
        if ("", DENSE, 0.0) not in done:
            kept = dict.fromkeys(weights_of(start), 1.0)
            self.all.append(Run(task.name, seed, "", DENSE, 0.0, accuracy(trained, images), kept))
        for init, method, sparsity in missing:
            looked_at = trained if init == "trained" else start
            masks = METHODS[method](Question(looked_at, task, images, sparsity, seed))
            network = deepcopy(start)
            train(network, task, images, seed, masks)
            right = accuracy(network, images)
            kept = {name: float(mask.float().mean()) for name, mask in masks.items()}
            self.all.append(Run(task.name, seed, init, method, sparsity, right, kept))
        print(task.name, "seed", seed, "done", flush=True)

    def _save(self) -> None:
        rows = [json.dumps({**asdict(run), "kept": _rounded(run.kept)}) for run in self.all]
        self._path.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")


def _rounded(kept: dict[str, float]) -> dict[str, float]:
    return {name: round(share, 5) for name, share in kept.items()}
