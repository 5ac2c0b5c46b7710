"""What a search for a sparsity found, as plain data and in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from onnx_sipp.report.names import shown

__all__ = ["SearchReport", "SearchStep", "goal_text", "search_rows", "search_table"]

_GOALS = {
    "max_error": "relative error at most {:g}",
    "min_agreement": "top-1 agreement at least {:g}",
    "max_drop": "metric at most {:g} lower",
}


@dataclass(frozen=True)
class SearchStep:
    """One sparsity that was tried.

    Attributes:
        sparsity: share of zeros.
        careful: whether it was pruned with all care, or in a short pass, which errs more.
        relative_error: largest of the outputs, on held-out samples.
        top1_agreement: smallest of those outputs that look like class scores; None if none does.
        metric: of the user's function; None if there is none.
        meets: whether that is within the goal.
    """

    sparsity: float
    careful: bool
    relative_error: float
    top1_agreement: float | None
    metric: float | None
    meets: bool


@dataclass(frozen=True)
class SearchReport:
    """How the sparsity was found.

    Attributes:
        goals: what was asked for, by name of the option.
        sparsity: the highest that was found to meet all of them.
        steps: in the order in which they were tried.
        metric_name: the user's function, "" if there is none.
        metric_dense: what it gives for the dense model.
    """

    goals: dict[str, float]
    sparsity: float
    steps: list[SearchStep]
    metric_name: str = ""
    metric_dense: float | None = None


def goal_text(goals: Mapping[str, float]) -> str:
    """What was asked for, in words."""
    return " and ".join(_GOALS[name].format(value) for name, value in goals.items())


def search_rows(found: SearchReport) -> tuple[list[str], list[list[str]]]:
    """Headings, and the sparsities that were tried, ascending, with what they cost."""
    heads = ["sparsity", "pass", "relative error", "top-1 agreement"]
    if found.metric_name:
        heads.append(f"{found.metric_name} (dense {found.metric_dense:.5g})")
    rows = []
    for step in sorted(found.steps, key=lambda step: (step.sparsity, step.careful)):
        cells = [
            f"{step.sparsity:.2%}",
            "careful" if step.careful else "short",
            f"{step.relative_error:.4g}",
            "" if step.top1_agreement is None else f"{step.top1_agreement:.1%}",
        ]
        if found.metric_name:
            cells.append("" if step.metric is None else f"{step.metric:.5g}")
        taken = step.careful and step.sparsity == found.sparsity
        rows.append([*cells, "taken" if taken else "met" if step.meets else "missed"])
    return [*heads, "goal"], rows


def search_table(found: SearchReport) -> Table:
    """The same for the terminal."""
    title = f"Search for the highest sparsity with {goal_text(found.goals)}"
    table = Table(title=title, title_justify="left")
    heads, rows = search_rows(found)
    for head in heads:
        table.add_column(shown(head), justify="right")
    for row in rows:
        table.add_row(*row)
    return table
