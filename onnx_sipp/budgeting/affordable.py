"""Whether budgets can be tried out: every layer alone, and every budget in a pass of its own."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_sipp.calibration.samples import Samples
from onnx_sipp.pruning.effort import trial_work
from onnx_sipp.pruning.evidence import product_work
from onnx_sipp.refitting.refitter import IMPACT_SAMPLES
from onnx_sipp.weights import Weight

__all__ = ["trials"]

# Multiplications of all the runs of the model that trying may take; on made-up samples.
_RUNS_LIMIT, _MADE_UP_RUNS_LIMIT = 5e12, 1e11
# The same of all products with H: beyond, a run would take more than twice as long, for little.
_REFITS_LIMIT = 5e11


def trials(
    weights: Sequence[Weight], work: float, samples: Samples, allocation: str
) -> tuple[bool, str]:
    """Whether every layer is pruned alone to look at the outputs, and what is against it.

    Args:
        weights: of the layers.
        work: multiplications with these weights in a run of the model on one sample.
        samples: that the outputs are looked at on.
        allocation: of the options.

    Returns:
        Whether it is done; if not, why, or "" if nobody has asked for it.
    """
    if allocation not in ("auto", "impact"):
        return False, ""
    why = _why_not(weights, work, samples, limited=allocation == "auto")
    return not why, why


def _why_not(weights: Sequence[Weight], work: float, samples: Samples, *, limited: bool) -> str:
    if any(len(weight.blocks) > 1 for weight in weights):
        return "layers are so large that they are pruned in blocks of neurons"
    if not limited:
        return ""
    count = len(samples.calibration) + len(samples.held_out)
    passes = 2 * len(weights) * min(count, IMPACT_SAMPLES)
    if passes * work > (_MADE_UP_RUNS_LIMIT if samples.synthetic else _RUNS_LIMIT):
        return f"to try every layer alone would take {passes:,} passes through a large model"
    if sum(trial_work(product_work(weight.shape)) for weight in weights) > _REFITS_LIMIT:
        return "layers are so wide that to try budgets would take longer than all else"
    return ""
