"""Masks: which weights of a layer were kept, by the layer's name."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.weights import Weight

__all__ = ["Masks", "write_masks"]


class Masks(Mapping[str, NDArray[np.bool_]]):
    """Masks by layer name; each is made from the pruned model when it is looked up.

    Args:
        weights: that were pruned.
        pruned: the lowered model with the new weights.
    """

    def __init__(self, weights: Sequence[Weight], pruned: Lowered) -> None:
        self._found = {layer.name: (weight, layer) for weight in weights for layer in weight.layers}
        self._pruned = pruned

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        weight, layer = self._found[name]
        kept = weight.view.to_matrix(self._pruned.read(weight.name)) != 0
        return layer.view.to_stored(weight.as_seen_by(layer, kept))

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def write_masks(masks: Mapping[str, NDArray[np.bool_]], out: BinaryIO) -> None:
    """Write masks as an ``.npz`` file, one at a time; the same masks give the same bytes.

    `numpy.savez` takes them as keywords, and a layer may have a name that is none.
    """
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mask in masks.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(mask), allow_pickle=False)
