"""Whether budgets can be tried out: every layer alone, and every budget in a pass of its own."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_sipp.calibration.samples import Samples
from onnx_sipp.measures import Measured
from onnx_sipp.pruning.effort import trial_work
from onnx_sipp.pruning.evidence import product_work
from onnx_sipp.refitting.refitter import IMPACT_SAMPLES
from onnx_sipp.weights import Weight

__all__ = ["why_no_trials"]

# Multiplications of all the runs of the model that trying may take; on made-up samples.
_RUNS_LIMIT, _MADE_UP_RUNS_LIMIT = 5e12, 1e11
# The same of all products with H: beyond, a run would take more than twice as long, for little.
_REFITS_LIMIT = 5e11


def why_no_trials(
    weights: Sequence[Weight], measured: Sequence[Measured], samples: Samples, *, limited: bool
) -> str:
    """What is against pruning every layer alone to look at the outputs; "" if nothing is.

    Args:
        weights: of the layers.
        measured: their statistics.
        samples: that the outputs are looked at on.
        limited: whether it may not take long.
    """
    if any(len(weight.blocks) > 1 for weight in weights):
        return "layers are so large that they are pruned in blocks of neurons"
    if not limited:
        return ""
    count = len(samples.calibration) + len(samples.held_out)
    passes = 2 * len(weights) * min(count, IMPACT_SAMPLES)
    work = passes * sum(found.patches * found.weight.size for found in measured)
    if work > (_MADE_UP_RUNS_LIMIT if samples.synthetic else _RUNS_LIMIT):
        return f"to try every layer alone would take {passes:,} passes through a large model"
    if sum(trial_work(product_work(weight.shape)) for weight in weights) > _REFITS_LIMIT:
        return "layers are so wide that to try budgets would take longer than all else"
    return ""
