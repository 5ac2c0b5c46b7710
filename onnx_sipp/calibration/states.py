"""State inputs: what a model takes that it itself gave out one step before."""

from __future__ import annotations

__all__ = ["check_states", "find_states"]

import re
from collections import Counter
from typing import TYPE_CHECKING

from onnx_sipp.calibration.specs import show_shape
from onnx_sipp.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx_sipp.calibration.specs import Dim, InputSpec

# What names of states carry beside the stem that input and output have in common.
_INPUT_MARKS = (
    r"^(past_key_values|past|prev)[_.]?",
    r"^(previous|last|old|in)[_.]",
    r"[_.](past|prev|previous|old|in)$",
    r"[_.]?0$",
    r"(?<=\d)i$",
)
_OUTPUT_MARKS = (
    r"^(present_key_values|present)[_.]?",
    r"^(new|next|updated|out)[_.]",
    r"[_.](present|new|next|updated|out)$",
    r"[_.]?n$",
    r"(?<=\d)o$",
)


def find_states(inputs: Sequence[InputSpec], outputs: Sequence[InputSpec]) -> dict[str, str]:
    """Pair inputs with outputs that have the same type, shape and, but for a mark, name.

    Marks are those in ``h0`` and ``hn``, ``state`` and ``stateN``, ``hidden_in`` and
    ``hidden_out``, ``past_0`` and ``present_0``. A pair is found only if no other fits either
    name, and if the model has an input that is no state.

    Args:
        inputs: of the model.
        outputs: of the model, as far as they are tensors of numbers.

    Returns:
        Names of outputs by names of inputs.
    """
    pairs = [
        (given.name, made.name)
        for given in inputs
        for made in outputs
        if given.dtype == made.dtype
        and _same(given.shape, made.shape)
        and _stems(given.name, _INPUT_MARKS) & _stems(made.name, _OUTPUT_MARKS)
    ]
    times = Counter(name for pair in pairs for name in pair)
    found = {given: made for given, made in pairs if times[given] == times[made] == 1}
    return found if len(found) < len(inputs) else {}


def _stems(name: str, marks: Sequence[str]) -> set[str]:
    """The name in lower case, and what is left of it without one of the marks."""
    lower = name.lower()
    return ({lower} | {re.sub(mark, "", lower) for mark in marks}) - {""}


def _same(one: tuple[Dim, ...] | None, other: tuple[Dim, ...] | None) -> bool:
    """Whether two shapes may be the same; a dimension without size or symbol may be any."""
    if one is None or other is None:
        return one is other
    return len(one) == len(other) and all(
        a == b or a is None or b is None for a, b in zip(one, other, strict=True)
    )


def check_states(
    states: Mapping[str, str], inputs: Sequence[InputSpec], outputs: Sequence[InputSpec]
) -> None:
    """Check the pairs that the user named.

    Raises:
        UsageError: there is no such input or output, the types or shapes do not fit, or no input
            is left to feed.
    """
    takes = {spec.name: spec for spec in inputs}
    gives = {spec.name: spec for spec in outputs}
    for name, source in states.items():
        if name not in takes:
            raise UsageError(
                f"the state {name!r} is no input of the model; its inputs are {', '.join(takes)}"
            )
        if source not in gives:
            raise UsageError(
                f"the state {name!r} is to come from {source!r}, which is no output of the model; "
                f"its outputs are {', '.join(gives)}"
            )
        given, made = takes[name], gives[source]
        if given.dtype != made.dtype or not _feasible(given.shape, made.shape):
            raise UsageError(
                f"the output {source!r}, {made.dtype} {show_shape(made.shape)}, cannot be fed to "
                f"the state {name!r}, {given.dtype} {show_shape(given.shape)}"
            )
    if len(states) == len(takes):
        raise UsageError("every input is named as a state; the samples need one that is none")


def _feasible(one: tuple[Dim, ...] | None, other: tuple[Dim, ...] | None) -> bool:
    """Whether a tensor of one declared shape may have the other: sizes that are known agree."""
    if one is None or other is None:
        return True
    return len(one) == len(other) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int))
        for a, b in zip(one, other, strict=True)
    )
