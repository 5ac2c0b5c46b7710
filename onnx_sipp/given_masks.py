"""Masks that the user gives: which weights stay, by layer name, as `masks.write_masks` has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.npy_stream import open_npz
from onnx_sipp.calibration.rows import MemoryRows, Rows
from onnx_sipp.errors import UsageError
from onnx_sipp.graph.layers import CHOSEN_BY_USER, Findings, Layer, without_layers
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.store import ArrayFile, TensorStore
from onnx_sipp.weights import Weight

__all__ = ["GivenMasks"]

Mask = NDArray[np.bool_]


class GivenMasks:
    """Masks from a file or from memory; a file is read layer by layer, and never unpickled.

    Args:
        source: path of a ``.npz`` file, or arrays by layer name.

    Raises:
        UsageError: there is no such file, or no mask.
        SippError: the file cannot be read.
    """

    def __init__(self, source: str | Path | Mapping[str, Any]) -> None:
        self._rows: Mapping[str, Rows]
        if isinstance(source, Mapping):
            self._where = "masks"
            self._rows = {
                name: MemoryRows(np.asarray(mask), self._where) for name, mask in source.items()
            }
        else:
            path = Path(source)
            self._where = str(path)
            if not path.is_file():
                raise UsageError(f"{path}: there is no such file of masks; --masks writes one")
            _, names = open_npz(path, ())
            self._rows, _ = open_npz(path, names)
        if not self._rows:
            raise UsageError(f"{self._where}: there are no masks in it")

    def fitted(self, model: Lowered, findings: Findings) -> Findings:
        """Leave out the layers that have no mask: they stay as they are.

        Args:
            model: that the layers belong to.
            findings: all prunable layers.

        Raises:
            UsageError: a mask is for no layer that can be pruned, or is of another kind or shape.
        """
        layers = {layer.name: layer for layer in findings.layers}
        own = {skip.name for skip in findings.skipped if skip.reason in CHOSEN_BY_USER}
        for name in self._rows:
            if name in layers:
                self._check(layers[name])
            elif name not in own:
                raise UsageError(f"{self._where}: {_why_unknown(name, findings)}")
        masked = {model.first_element(layers[name].weight) for name in self._rows if name in layers}
        if not masked:
            raise UsageError(f"{self._where}: all layers that have masks are excluded")
        reasons = {
            layer.name: "no mask is given for it"
            for layer in findings.layers
            if model.first_element(layer.weight) not in masked
        }
        return without_layers(model, findings, reasons)

    def placed(self, weights: Sequence[Weight], store: TensorStore) -> Callable[[int, int], Mask]:
        """See the masks as the matrices of weights.

        Args:
            weights: each with a mask for one of its layers, or for more.
            store: keeps them.

        Returns:
            A function that gives, by the index of a weight and the number of a block of it,
            ``[group, out, fan_in]``.

        Raises:
            UsageError: layers that share a weight have different masks.
            SippError: the file cannot be read.
        """
        kept = [store.keep(self._of(weight)) for weight in weights]

        def of_block(index: int, number: int) -> Mask:
            rows, whole = weights[index].blocks[number].rows, kept[index]
            if isinstance(whole, ArrayFile):
                return whole.slab(1, rows)
            return whole[:, rows]

        return of_block

    def _check(self, layer: Layer) -> None:
        found, wanted = self._rows[layer.name], layer.view.stored
        if found.dtype != np.bool_:
            raise UsageError(
                f"{self._where}: the mask for {layer.name!r} holds {found.dtype} values, where "
                "truth values (bool) say what stays; write mask.astype(bool)"
            )
        if found.shape != wanted:
            raise UsageError(
                f"{self._where}: the mask for {layer.name!r} has the shape {list(found.shape)}, "
                f"but the weight that it multiplies has {list(wanted)}"
            )

    def _of(self, weight: Weight) -> Mask:
        first, *others = [layer for layer in weight.layers if layer.name in self._rows]
        mask = self._seen(weight, first)
        for other in others:
            differing = int(np.count_nonzero(mask != self._seen(weight, other)))
            if differing:
                raise UsageError(
                    f"{self._where}: {first.name!r} and {other.name!r} multiply the same weight, "
                    f"but their masks differ in {differing} places; give both the same mask, or "
                    "only one of them"
                )
        return mask

    def _seen(self, weight: Weight, layer: Layer) -> Mask:
        rows = self._rows[layer.name]
        (stored,) = rows.blocks(rows.shape[0])
        # A file may say True by any byte that is not zero.
        truth = stored.reshape(rows.shape).view(np.uint8) != 0
        return np.ascontiguousarray(weight.from_layer(layer, layer.view.to_matrix(truth)))


def _why_unknown(name: str, findings: Findings) -> str:
    """What to say of a mask for no prunable layer."""
    for skip in findings.skipped:
        if skip.name == name:
            return f"there is a mask for {name!r}, which cannot be pruned: {skip.reason}"
    names = [layer.name for layer in findings.layers]
    close = get_close_matches(name, names, 1)
    hint = (
        f"did you mean {close[0]!r}?"
        if close
        else f"there are {', '.join(names[:10])}{' and others' if len(names) > 10 else ''}"
    )
    return f"there is a mask for {name!r}, but no such layer; {hint}"
