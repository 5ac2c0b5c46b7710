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
        metavar="F.py[:FUNC]",
        help="Python function that gives a number for a model, the higher the better; FUNC is "
        "evaluate by default. It is called with an onnxruntime session, or the path if its "
        "argument is called path. The file is executed.",
    )(function)


def goal_options(function: F) -> F:
    """Add the options of the search; several of them must all hold."""
    error = click.option(
        "--max-error",
        type=float,
        metavar="E",
        help="Instead of --sparsity: search for the highest at which no output has a larger "
        "relative error on held-out samples.",
    )
    agreement = click.option(
        "--min-agreement",
        type=float,
        metavar="A",
        help="Likewise: the least share of held-out samples with the dense model's top-1 class.",
    )
    drop = click.option(
        "--max-drop",
        type=float,
        metavar="D",
        help="Likewise, with --eval-script: how much lower its number may be than the dense "
        "model's.",
    )
    return error(agreement(drop(eval_script_option(function))))
