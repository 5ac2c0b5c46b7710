"""Which layers a pattern fits, and which of them sparse tensor cores can run.

A pattern is about the stored constant as its layer multiplies it: N:M and the columns of blocks lie
along the input channels (of each group, at each place of a window) or the reduction axis of a
matrix product; the rows of blocks are neighbouring output channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.errors import SippError
from onnx_sipp.graph.layers import Findings, Layer, without_layers
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.pruning.cells import Cells
from onnx_sipp.pruning.patterns import Blocks, NofM

__all__ = ["fitted", "why_no_sparse_cores"]


def fitted(model: Lowered, findings: Findings, pattern: NofM | Blocks) -> Findings:
    """Leave out layers that a pattern does not fit: they stay dense.

    Args:
        model: that the layers belong to.
        findings: all prunable layers.
        pattern: that zeros have to lie in.

    Raises:
        SippError: it fits none.
    """
    users: dict[int, list[Layer]] = {}
    for layer in findings.layers:
        users.setdefault(model.first_element(layer.weight), []).append(layer)
    reasons = {}
    for sharing in users.values():
        why = next(filter(None, (_why_not(layer, pattern) for layer in sharing)), "")
        if not why and not _agree(model, sharing, pattern):
            why = "its layers multiply it along different axes, so that no pattern is right for all"
        reasons.update({layer.name: f"{pattern}: {why}" for layer in sharing if why})
    result = without_layers(model, findings, reasons)
    if not result.layers:
        left = result.skipped[len(findings.skipped) :]
        told = "".join(f"\n  {skip.name} ({skip.op_type}): {skip.reason}" for skip in left[:10])
        raise SippError(f"the pattern {pattern} fits no layer of the model:{told}")
    return result


def why_no_sparse_cores(model: Lowered, layer: Layer, pattern: NofM | Blocks) -> str:
    """Why sparse tensor cores cannot run a layer with these zeros; "" if they can.

    By what TensorRT documents and its maintainers say: convolutions and products of a matrix with
    4 | input channels; group convolutions are not tried (github.com/NVIDIA/TensorRT, issue 4054).
    Whether a sparse kernel is faster, and so picked, is another matter: it is for some hundred
    channels (issue 3849).
    """
    if not (isinstance(pattern, NofM) and pattern.suits_sparse_cores):
        return f"they take 2:4, which {pattern} is not"
    groups, _, fan_in = layer.view.matrix
    channels = fan_in // layer.view.positions
    node = model.plan.labels[layer.index]
    if node.node:
        return f"it is a part of {node.op_type}, which runs as a whole"
    if layer.op_type not in ("Conv", "Gemm", "MatMul"):
        return f"TensorRT has sparse kernels for Conv, Gemm and MatMul, not for {layer.op_type}"
    if groups > 1:
        conv = "it is a convolution in groups, for which TensorRT tries no sparse kernels"
        stack = "it is a stack of matrices, for which no sparse kernels are documented"
        return conv if layer.kind == "Conv" else stack
    if channels % 4:
        return f"its {channels} input channels are no multiple of 4"
    return ""


def _why_not(layer: Layer, pattern: NofM | Blocks) -> str:
    """Why a pattern does not fit a layer, "" if it does."""
    groups, outs, fan_in = layer.view.matrix
    channels = fan_in // layer.view.positions
    rows, columns = (
        (1, pattern.of) if isinstance(pattern, NofM) else (pattern.rows, pattern.columns)
    )
    of_group = " of each group" if groups > 1 else ""
    if channels % columns:
        return f"its {channels} input channels{of_group} are no multiple of {columns}"
    if outs % rows:
        return f"its {outs} output channels{of_group} are no multiple of {rows}"
    return ""


def _agree(model: Lowered, layers: Sequence[Layer], pattern: NofM | Blocks) -> bool:
    """Whether layers that share a weight see the same cells in it."""
    if len({(layer.weight, layer.view) for layer in layers}) == 1:
        return True
    seen = [_elements_of_cells(model, layer, pattern) for layer in layers]
    return all(np.array_equal(cells, seen[0]) for cells in seen)


def _elements_of_cells(model: Lowered, layer: Layer, pattern: NofM | Blocks) -> NDArray[np.integer]:
    """The stored elements of each cell, ``[cells, size]``, in an order that any view gives."""
    cells = Cells.of(pattern, layer.view.positions)
    ids = cells.gathered(layer.view.to_matrix(model.elements(layer.weight)))
    rows = np.sort(ids.reshape(-1, ids.shape[-1]), axis=1)
    return rows[np.argsort(rows[:, 0])]
