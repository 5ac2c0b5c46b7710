"""Proof by running: a cut model gives what the uncut one does if nothing reads what is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.specs import Feed
from onnx_sipp.channels.plan import Coupling, Gone
from onnx_sipp.channels.surgery import cut_out
from onnx_sipp.errors import SippError
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.model import Model
from onnx_sipp.rewriting import BlockWriter
from onnx_sipp.weights import Weight

__all__ = ["difference", "found_wrong", "unread"]

# Relative error of the outputs that rounding in another order may make.
_ROUNDING = 1e-3
# What a Sigmoid, say, adds to that where all outputs are near zero.
_SMALLEST = 1e-6


def unread(dense: Lowered, weights: Sequence[Weight], coupling: Coupling, gone: Gone) -> Lowered:
    """The model with zeros for all weights that read some units.

    Args:
        dense: is not changed.
        weights: of the model.
        coupling: of its groups.
        gone: the units.
    """
    result = dense.copy()
    writer = BlockWriter(result)
    numbers = coupling.numbers(gone)
    touched = {index for number in gone for index in coupling.readers[number]}
    for index in sorted(touched):
        for block in weights[index].blocks:
            kept = coupling.kept(index, numbers, block.view.matrix[1])
            old = block.stored_in(dense)
            values = np.where(block.view.to_stored(kept), old, 0).astype(old.dtype)
            writer.write(block, values)
    return result


def difference(execution: Execution, masked: Model, cut: Model, feeds: Sequence[Feed]) -> str:
    """What is wrong with a cut model, "" if nothing is.

    Args:
        execution: how models are run.
        masked: the uncut model, in which nothing reads what is cut.
        cut: the cut one.
        feeds: samples to compare on.
    """
    try:
        pairs = list(
            zip(execution.outputs(masked, feeds), execution.outputs(cut, feeds), strict=True)
        )
    except SippError as error:
        return f"without some the model does not run ({str(error).splitlines()[0]})"
    for before, after in pairs:
        for name, old in before.items():
            if isinstance(old, np.ndarray) and (wrong := _differ(name, old, after[name])):
                return wrong
    return ""


def _differ(name: str, old: NDArray[np.generic], new: NDArray[np.generic]) -> str:
    if old.shape != new.shape:
        return f"without some the output {name!r} has another shape"
    if old.dtype.kind not in "fV":
        return ""
    a, b = old.astype(np.float64), new.astype(np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    factor = 16 if old.dtype.itemsize < 4 else 1
    allowed = factor * (_ROUNDING * np.linalg.norm(a[both]) + _SMALLEST * np.sqrt(a.size))
    if (np.isfinite(a) != np.isfinite(b)).any() or np.linalg.norm((a - b)[both]) > allowed:
        return f"without some the output {name!r} changes, although nothing is known to read them"
    return ""


def found_wrong(
    dense: Lowered,
    weights: Sequence[Weight],
    coupling: Coupling,
    align: int | None,
    execution: Execution,
    feeds: Sequence[Feed],
) -> Mapping[int, str]:
    """Groups that cannot be cut as the graph says, with what happens.

    All are tried at once; only if that fails each by itself.

    Args:
        dense: the lowered model.
        weights: of it.
        coupling: of its groups.
        align: see `Group.counts`.
        execution: how models are run.
        feeds: samples to compare on.
    """
    original = dense.plan.original

    def tried(numbers: Sequence[int]) -> str:
        gone = {number: _some(coupling, number, align) for number in numbers}
        masked = unread(dense, weights, coupling, gone)
        proto = cut_out(original, coupling.trace, coupling.numbers(gone))
        cut = Model(proto, original.path, original.libraries)
        return difference(execution, masked, cut, feeds)

    free = coupling.free
    if not free or not tried(free):
        return {}
    wrong = {number: reason for number in free if (reason := tried([number]))}
    rest = [number for number in free if number not in wrong]
    if rest and (reason := tried(rest)):
        wrong |= dict.fromkeys(rest, f"together with others: {reason}")
    return wrong


def _some(coupling: Coupling, number: int, align: int | None) -> NDArray[np.int64]:
    """Units of a group to try without: every second or so, an allowed number of them."""
    group = coupling.groups[number]
    counts = group.counts(align)
    kept = counts[(len(counts)) // 2]
    gone = np.linspace(0, group.count - 1, group.count - kept)
    return gone.round().astype(np.int64)
