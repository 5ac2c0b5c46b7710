"""Repeat a pass without the weights that did nothing in it; see `idle`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.outcome import Outcome, Respent
from onnx_sipp.refitting.idle import Idle
from onnx_sipp.weights import Weight

__all__ = ["REPEATS", "spend_again"]

# Share of the kept weights below which what is idle is not worth another pass.
_WORTH = 0.01
# Most passes that are repeated.
REPEATS = 3


def spend_again(
    best: Outcome,
    weights: Sequence[Weight],
    keep: int,
    *,
    find: Callable[[Lowered], Sequence[Idle]],
    leave_out: Callable[[Sequence[Idle]], bool],
    again: Callable[[], Outcome],
    error: Callable[[Lowered], float],
    left: Sequence[Idle] = (),
    repeats: int = REPEATS,
) -> Outcome:
    """Repeat a pass as long as there are idle weights and that lowers the error.

    Args:
        best: what came of the pass.
        weights: that are pruned.
        keep: how many of them stay.
        find: tells what is idle in a model, per weight.
        leave_out: takes idle weights out of all choices, and says whether it did.
        again: makes another pass.
        error: relative squared error of a model's outputs.
        left: what had been left out of the pass, per weight.
        repeats: most passes.

    Returns:
        The best pass, with the same number of weights, and what was freed on the way there.
    """
    left = left or [Idle.none(weight) for weight in weights]
    freed: list[int] = [0] * len(weights)
    errors: list[float] = []  # measured only where another pass is compared with them
    for _ in range(repeats):
        idle = find(best.model)
        wasted = [found.count(w, best.model) for found, w in zip(idle, weights, strict=True)]
        if sum(wasted) <= _WORTH * keep or not leave_out(idle):
            break
        errors = errors or [error(best.model)]
        tried = again()
        now = error(tried.model)
        if now >= errors[-1]:
            break
        best, left, errors = tried, idle, [*errors, now]
        freed = [old + new for old, new in zip(freed, wasted, strict=True)]
    neurons = [found.neurons for found in left]
    return replace(best, respent=Respent(freed, neurons, [value**0.5 for value in errors]))
