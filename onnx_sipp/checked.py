"""From what is asked for to options that make sense."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from onnx_sipp.choices import DEFAULT_METHOD, DEFAULT_SPARSITY, SOUGHT
from onnx_sipp.config.kinds import checked_keyword
from onnx_sipp.config.rules import read_rules
from onnx_sipp.errors import UsageError
from onnx_sipp.goal_rules import refuse_beside_masks, refuse_second_goal, sparsity_of
from onnx_sipp.option_rules import rules_for
from onnx_sipp.options import Options
from onnx_sipp.pruning.methods import METHODS
from onnx_sipp.pruning.patterns import NofM, parse_pattern

__all__ = ["checked_options"]


def checked_options(options: Mapping[str, Any]) -> Options:
    """Build options from keywords and check them.

    Raises:
        UsageError: a name is unknown or a value makes no sense.
    """
    names = [option.name for option in fields(Options)]
    for name in options:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(names)}"
            raise UsageError(f"there is no option {name!r}{hint}")
    given = _read({name: value for name, value in options.items() if value is not None})
    if "sparsity" in given and "epsilon" in given:
        raise UsageError("give either a sparsity or an epsilon, not both: each fixes the other")
    refuse_beside_masks(given)
    shape = parse_pattern(given.get("pattern", ""))
    refuse_second_goal(given, shape)
    if isinstance(shape, NofM):
        implied = sparsity_of(shape, given)
        if "epsilon" not in given:
            given["sparsity"] = implied
    if not {"epsilon", "macs", "latency", "masks", *SOUGHT} & set(given):
        given.setdefault("sparsity", DEFAULT_SPARSITY)
    # A bound is about weights that are dropped or sampled, not about refitted ones.
    method = given.setdefault("method", "sipp-hybrid" if "epsilon" in given else DEFAULT_METHOD)
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}; there are {', '.join(METHODS)}")
    given["allocation"] = given.get("allocation") or METHODS[method].allocation
    refits = "sequential" if method == "mixed" else "none"
    given["compensate"] = given.get("compensate") or refits
    result = Options(**given)
    for holds, message in rules_for(result):
        if not holds:
            raise UsageError(message)
    return result


def _read(given: Mapping[str, Any]) -> dict[str, Any]:
    """Every value as it is kept.

    Raises:
        UsageError: one is of another kind.
    """
    return {
        name: read_rules(value) if name == "rules" else checked_keyword(name, value)
        for name, value in given.items()
    }
