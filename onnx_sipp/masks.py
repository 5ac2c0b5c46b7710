"""Masks: which weights of a layer were kept, by the layer's name."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.errors import SippError
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.keeping.archive import Member, write_members
from onnx_sipp.weights import Weight

__all__ = ["Masks", "refuse_names", "write_masks"]


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


# Bytes of a name in such a file, with room for `_inside`.
_LONGEST = 30_000


def _inside(name: str) -> str:
    """A name that leads no unpacking tool out of its folder."""
    return name.replace("../", "..%2F").replace("..\\", "..%5C")


def refuse_names(names: Iterable[str]) -> None:
    """Check that the names of layers can be those of masks in a file.

    Raises:
        SippError: one is too long.
    """
    for name in names:
        if len(name.encode()) > _LONGEST:
            raise SippError(f"the name of layer {name[:80]!r}… is too long for a file of masks")


def write_masks(masks: Mapping[str, NDArray[np.bool_]], out: BinaryIO) -> None:
    """Write masks as an ``.npz`` file, one at a time; the same masks give the same bytes."""
    members = (Member.of(_inside(name), mask) for name, mask in masks.items())
    write_members(members, out, zipfile.ZIP_DEFLATED)
