"""There is one goal: what is refused beside masks, a pattern or a sparsity that is searched for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnx_sipp.choices import DEFAULT_METHOD, SOUGHT
from onnx_sipp.errors import UsageError
from onnx_sipp.pruning.error_budget import FLOOR
from onnx_sipp.pruning.patterns import Channels, NofM, Pattern

if TYPE_CHECKING:
    from onnx_sipp.config.rules import Rule

__all__ = ["refuse_beside_masks", "refuse_second_goal", "sparsity_of"]

# What masks leave nothing to do for, with what it is if nobody says anything.
_IDLE_BESIDE_MASKS: Mapping[str, Any] = {
    "pattern": "", "method": DEFAULT_METHOD, "allocation": "auto", "rounds": 1, "floor": FLOOR,
    "candidates": (),
}  # fmt: skip


def refuse_second_goal(given: Mapping[str, Any], pattern: Pattern | None) -> None:
    """Check that a sparsity to be searched for is the only thing that is asked for.

    Raises:
        UsageError: something else fixes it.
    """
    sought = [name for name in SOUGHT if name in given]
    fixed = [n for n in ("sparsity", "epsilon", "macs", "latency") if n in given]
    if sought and fixed:
        raise UsageError(
            f"give either {' and '.join(sought)} or {fixed[0]}, not both: each fixes the other"
        )
    if sought and isinstance(pattern, NofM):
        raise UsageError(
            f"the pattern {pattern} fixes the sparsity, so none can be searched for; leave "
            f"{' and '.join(sought)} out"
        )
    if sought and isinstance(pattern, Channels):
        raise UsageError(
            f"{' and '.join(sought)} cannot be searched for by cutting channels; give "
            "macs, latency or a sparsity"
        )


def refuse_beside_masks(given: Mapping[str, Any]) -> None:
    """Check that nothing else says which weights stay where masks do.

    Raises:
        UsageError: something does.
    """
    if "masks" not in given:
        return
    goals = [n for n in ("sparsity", "epsilon", "macs", "latency", *SOUGHT) if n in given]
    # Files that write all options down have these, too.
    idle = [name for name, usual in _IDLE_BESIDE_MASKS.items() if given.get(name, usual) != usual]
    idle = [name for name in idle if given[name]]
    if goals or idle:
        raise UsageError(
            "masks say which weights stay, and so how many; leave "
            f"{' and '.join([*goals, *idle])} out"
        )
    rules: Sequence[Rule] = given.get("rules", ())
    if any(r.sparsity is not None or r.floor is not None or r.candidates for r in rules):
        raise UsageError("beside masks, rules for single layers can only exclude them")


def sparsity_of(pattern: NofM, given: Mapping[str, Any]) -> float:
    """The sparsity that a pattern makes.

    Raises:
        UsageError: another one is asked for, or a way to share it out.
    """
    if (
        "epsilon" not in given
        and abs(given.get("sparsity", pattern.sparsity) - pattern.sparsity) > 0.005
    ):
        raise UsageError(
            f"the pattern {pattern} makes {pattern.sparsity:.1%} of the weights of every layer "
            f"zero, not {given['sparsity']:.1%}; leave the sparsity out, or take another pattern"
        )
    if given.get("allocation"):
        raise UsageError(
            f"the pattern {pattern} fixes how many weights every layer keeps, so there is no "
            f"budget to share out; leave the allocation {given['allocation']!r} out"
        )
    return pattern.sparsity
