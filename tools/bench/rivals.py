"""The same files pruned by onnx-sipp, onnxsim and Polygraphy: seconds and error of the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from bench_accuracy import TOOLS, Arrays, Case, Prune, judge, outputs, weight_owners
from polygraphy.logger import G_LOGGER
from polygraphy.tools.sparse import SparsityPruner
from table_methods import markdown

import onnx_sipp
from bench.timing import Effort, Timed, alternating, figures, told

__all__ = ["RIVALS", "compared", "ours_with", "polygraphy"]

SPARSITY = 0.5
HEADER = ["model", "zeros", "tool", "error", "zeros reached", "seconds", "times ours", "rounds"]


@dataclass(frozen=True)
class Rival:
    """A way to prune.

    Attributes:
        kind: Of zeros; the first of a kind is ours, and what others are measured by.
        name: Of the tool.
        prune: Does it.
    """

    kind: str
    name: str
    prune: Prune


def ours_with(**options: Any) -> Prune:
    """Returns our pruning with some options, on all samples."""

    def prune(model: onnx.ModelProto, calib: Arrays, sparsity: float) -> onnx.ModelProto:
        count = len(next(iter(calib.values())))
        goal = {} if "pattern" in options else {"sparsity": sparsity}
        return onnx_sipp.prune(model, calib, num_samples=count, **goal, **options).model

    return prune


def polygraphy(model: onnx.ModelProto, calib: Arrays, sparsity: float) -> onnx.ModelProto:
    """Prunes as ``polygraphy surgeon prune`` does: 2:4 by magnitude, without data."""
    del calib, sparsity
    own = onnx.ModelProto()
    own.CopyFrom(model)  # it changes what it is given
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), np.errstate(over="ignore"):
        pruned: onnx.ModelProto = SparsityPruner(own).prune()
    return pruned


ANYWHERE, TWO_FOUR = "50 % anywhere", "2:4"
RIVALS = [
    Rival(ANYWHERE, "onnx-sipp", TOOLS["onnx-sipp"]),
    Rival(ANYWHERE, "onnx-sipp, `--allocation layer`", ours_with(allocation="layer")),
    *(
        Rival(ANYWHERE, name, TOOLS[name])
        for name in ("onnxsim magnitude", "onnxsim Wanda", "onnxsim SparseGPT")
    ),
    Rival(TWO_FOUR, "onnx-sipp, `--pattern 2:4`", ours_with(pattern="2:4")),
    Rival(TWO_FOUR, "Polygraphy", polygraphy),
]


def compared(cases: Sequence[Case], effort: Effort) -> str:
    """Prunes every model by every tool, in turn.

    Args:
        cases: Models and their data.
        effort: How often.

    Returns:
        The table.
    """
    lines = []
    for case in cases:
        told(f"others: {case.title}")
        dense, owners = outputs(case.model, case.test), weight_owners(case.model)
        works = {
            rival.name: partial(rival.prune, case.model, case.calib, SPARSITY) for rival in RIVALS
        }
        found = alternating(works, effort)
        lines += [_row(case, rival, found, dense, owners) for rival in RIVALS]
    return markdown(HEADER, lines)


def _row(
    case: Case,
    rival: Rival,
    found: dict[str, Timed],
    dense: np.ndarray,
    owners: Sequence[str],
) -> list[str]:
    own = found[rival.name]
    first = next(other.name for other in RIVALS if other.kind == rival.kind)
    cells = [case.title, rival.kind, rival.name]
    if own.trouble:
        return [*cells, f"fails: {own.trouble}", "–", "–", "–", "–"]
    try:
        error = f"{judge(case, own.result, dense)[1]:.4f}"
        zeros = _zeros(own.result, owners)
    except Exception as trouble:  # what it made cannot be run
        error, zeros = f"its model fails: {type(trouble).__name__}", "–"
    times = own.median / found[first].median
    rounds = f"{len(own.seconds)}"
    return [*cells, error, zeros, figures(own.median), figures(times), rounds]


def _zeros(model: onnx.ModelProto, owners: Sequence[str]) -> str:
    """Returns the share of zeros in the weights that ours prunes, and how many have none."""
    by_name = {layer.name: layer for layer in onnx_sipp.inspect(model).layers}
    layers = [by_name[name] for name in owners]
    share = sum(layer.zeros for layer in layers) / sum(layer.parameters for layer in layers)
    left = sum(layer.zeros == 0 for layer in layers)
    return f"{100 * share:.1f} %" + (
        f", leaves {left} of {len(layers)} weights dense" if left else ""
    )
