"""Options that ask for fidelity instead of a sparsity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["eval_script_option", "goal_options"]

F = TypeVar("F", bound=Callable[..., Any])


def eval_script_option(function: F) -> F:
    """Add the option for the user's own metric."""
    return click.option(
        "--eval-script",
        metavar="FILE",
        help="File with evaluate(session), or FILE:FUNC; more is better; it is run.",
    )(function)


def goal_options(function: F) -> F:
    """Add the options of the search; several of them must all hold."""
    error = click.option(
        "--max-error",
        type=float,
        metavar="E",
        help="Instead: as many zeros as keep the outputs' relative error below E.",
    )
    agreement = click.option(
        "--min-agreement",
        type=float,
        metavar="A",
        help="Instead: as many as keep this share of the top-1 classes.",
    )
    drop = click.option(
        "--max-drop",
        type=float,
        metavar="D",
        help="Instead: as many as lower what --eval-script gives by no more than D.",
    )
    return error(agreement(drop(eval_script_option(function))))
