"""How many batches are run through a model at the same time."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_sipp.calibration.runner import is_large
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import is_random
from onnx_sipp.graph.walk import all_nodes

__all__ = ["AT_ONCE", "batch_threads"]

# At most, as each takes memory.
AT_ONCE = 4
_CPU = "CPUExecutionProvider"


def batch_threads(
    model: Model, batches: int, threads: int | None, providers: Sequence[str] | None
) -> int | None:
    """How many batches to run at the same time; None if it is better one after the other.

    Threads of onnxruntime have less to do each, and wait for each other. But batches take memory
    each; and what a model draws, or an operator from elsewhere keeps, would depend on their order.

    Args:
        model: that they are run through.
        batches: how many there are.
        threads: that there are; None for those of onnxruntime.
        providers: execution providers, None for the CPU.
    """
    if threads is None or set(providers or [_CPU]) != {_CPU}:
        return None
    several = min(threads, AT_ONCE)
    if batches < 2 * several:
        return None
    if model.libraries or is_large(model) or any(map(is_random, all_nodes(model.proto))):
        return None
    return several
