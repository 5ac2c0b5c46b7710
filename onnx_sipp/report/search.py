"""What a search for a sparsity found, as plain data and in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

__all__ = ["SearchReport", "SearchStep", "goal_text", "search_table"]

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


def search_table(found: SearchReport) -> Table:
    """The sparsities that were tried, ascending, and what they cost."""
    title = f"Search for the highest sparsity with {goal_text(found.goals)}"
    table = Table(title=title, title_justify="left")
    heads = ["sparsity", "pass", "relative error", "top-1 agreement"]
    if found.metric_name:
        heads.append(f"{found.metric_name} (dense {found.metric_dense:.5g})")
    for head in [*heads, "goal"]:
        table.add_column(head, justify="right")
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
        table.add_row(*cells, "taken" if taken else "met" if step.meets else "missed")
    return table
