"""Weights on dead paths are taken out of the choice, and their budget is spent on others.

After a pass some neurons are read by no weight that is left, and some inputs have become constant.
What weighs them does nothing (see `graph.dead`): such weights can be zero for free, beyond those
that were asked for, so as many others can stay. The pass is repeated without them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.dead import LayerFacts, dead_paths
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.order import reads as names_read
from onnx_sipp.graph.sharing import other_readers
from onnx_sipp.pruning.cells import Cells
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.weights import Weight

__all__ = ["Idle", "find_idle", "read_elsewhere"]

Mask = NDArray[np.bool_]
Float = NDArray[np.floating]


@dataclass(frozen=True)
class Idle:
    """What does nothing of one stored constant: weights of some neurons, and of some inputs.

    They can all be zero, and the outputs of the model stay the same once a bias has taken up what
    constant inputs added.

    Attributes:
        neurons: ``[group, out]``, that reach no output.
        inputs: ``[group, fan_in]``, that are constant, or read by nobody.
        cells: of a pattern. What is idle is cleared only where that makes room for others: whole
            cells, or weights of a cell that has as many others as may stay.
    """

    neurons: Mask
    inputs: Mask
    cells: Cells | None = None

    @classmethod
    def none(cls, weight: Weight) -> Idle:
        """All of a weight does something."""
        groups, outs, fan_in = weight.shape
        neurons, inputs = np.zeros((groups, outs), np.bool_), np.zeros((groups, fan_in), np.bool_)
        return cls(neurons, inputs, weight.cells)

    @property
    def is_empty(self) -> bool:
        """Whether everything does something."""
        return not (self.neurons.any() or self.inputs.any())

    def cleared(self, weight: Float, rows: slice | NDArray[np.intp] = slice(None)) -> Float:
        """Weights of some neurons, ``[group, out, fan_in]``, those that are idle set to zero."""
        if self.is_empty:
            return weight
        idle = self.neurons[:, rows, None] | self.inputs[:, None, :]
        if self.cells is not None:
            idle = self.cells.replaceable(idle, weight)
        result: Float = np.where(idle, weight.dtype.type(0), weight)
        return result

    def taken_from(self, evidence: Evidence, rows: slice | NDArray[np.intp]) -> Evidence:
        """Evidence of some neurons in which idle weights are zero, so that none is chosen.

        Neurons that reach no output count for nothing.
        """
        if self.is_empty:
            return evidence
        gain = np.where(self.neurons[:, rows], 0, evidence.gain)
        return replace(evidence, weight=self.cleared(evidence.weight, rows), gain=gain)

    def count(self, weight: Weight, model: Lowered) -> int:
        """How many of the weights that are not zero in a model are idle."""
        if self.is_empty:
            return 0
        total = 0
        for block in weight.blocks:
            present = block.matrix_in(model)
            left = self.cleared(present, block.rows)
            total += int(np.count_nonzero(present)) - int(np.count_nonzero(left))
        return total


def read_elsewhere(model: Lowered, flow: Flow, weights: Sequence[Weight]) -> set[str]:
    """Names of layers whose weights anything but layers reads: it may need any element of them.

    That is an embedding, for instance; or an LSTM, beside which layers stand in the lowered graph
    for its inner products.

    Args:
        model: the dense one.
        flow: of its main graph.
        weights: that are pruned.
    """
    layers = [layer for weight in weights for layer in weight.layers]
    found = {layer.name for layer, _ in other_readers(model, layers)}
    for weight in weights:
        own = {layer.weight for layer in weight.layers}
        nodes = {layer.index for layer in weight.layers}
        sites = {site for name in own for site in model.plan.sites[name]}
        for name in {name for site in sites for name in model.plan.stored_at[site]}:
            readers = set(flow.readers.get(name, ())) - (nodes if name in own else set())
            if readers and any(model.have_common_elements(mine, name) for mine in own):
                found |= {layer.name for layer in weight.layers}
    return found


def find_idle(
    model: Lowered,
    flow: Flow,
    weights: Sequence[Weight],
    biased: Collection[str],
    tied: Collection[str] = (),
) -> list[Idle]:
    """Find what does nothing in a model as its weights are now.

    Args:
        model: is not changed.
        flow: of its main graph.
        weights: that are pruned.
        biased: names of layers that have a bias which can take up a constant.
        tied: names of layers whose weights have to stay as they are chosen: `read_elsewhere`.
    """
    layers = [layer for weight in weights for layer in weight.layers]
    folds = {
        weight.layers[0].index: weight.layers[0].name in biased
        for weight in weights
        if len(weight.layers) == 1 and weight.layers[0].name not in tied
    }
    # Branches that are never taken on the samples may be on others.
    unseen = [name for node, _ in model.plan.left_out for name in names_read(node)]
    found = dead_paths(model, flow, layers, folds, unseen)
    facts = dict(zip((layer.name for layer in layers), found, strict=True))
    return [
        Idle.none(weight)
        if any(layer.name in tied or not weight.seen_alike(layer) for layer in weight.layers)
        else _common([facts[layer.name] for layer in weight.layers], weight.cells)
        for weight in weights
    ]


def _common(facts: Sequence[LayerFacts], cells: Cells | None) -> Idle:
    """A weight is idle if it is in all layers that share it."""
    return Idle(
        np.logical_and.reduce([found.unread for found in facts]),
        np.logical_and.reduce([found.unread_inputs | found.removable for found in facts]),
        cells,
    )
