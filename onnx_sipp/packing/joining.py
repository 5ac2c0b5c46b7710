"""Small tensors that are packed together: they share the operators that rebuild them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.packing.candidates import Candidate
from onnx_sipp.packing.codes import Codes, Places, gaps_of, mask_of, nibbles_of
from onnx_sipp.packing.values import Stored

__all__ = [
    "ENCODERS", "LEAST_SHARE", "MOST_JOINED", "Part", "by_encoding", "joinable", "joined", "shares",
]  # fmt: skip

# Of their bytes, that tensors must save to be packed.
LEAST_SHARE = 0.05
# Elements of a tensor, up to which operators of its own would take a share of its bytes that
# matters. Larger ones alone take less memory to rebuild.
MOST_JOINED = 1 << 16
ENCODERS: tuple[Callable[[NDArray[Any], NDArray[Any], Places], Codes], ...] = (
    mask_of, nibbles_of, gaps_of,
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A tensor to be packed.

    Attributes:
        candidate: where it is in the model.
        original: its elements.
        stored: as they will be stored.
        places: indices of those that are kept.
    """

    candidate: Candidate
    original: NDArray[Any]
    stored: Stored
    places: Places

    @property
    def counts(self) -> tuple[int, int]:
        """Kept elements, and all."""
        return self.places.size, self.original.size

    def payload(self, encoder: Callable[..., Codes]) -> int:
        """Bytes of the codes and the kept elements."""
        codes = encoder(self.stored.elements, self.stored.usual, self.places)
        return codes.data.nbytes + codes.values.nbytes


def joinable(parts: Sequence[Part]) -> list[list[Part]]:
    """Tensors that can go together: those of one type that leave out the same element.

    Those that would gain nothing by themselves are alone, lest they are carried by the others.
    """
    found: dict[tuple[Any, ...], list[Part]] = {}
    alone = []
    for part in parts:
        stored = part.stored
        if min(map(part.payload, ENCODERS)) > (1 - LEAST_SHARE) * part.original.nbytes:
            alone.append([part])
            continue
        key = stored.elements.dtype, stored.data_type, stored.usual.tobytes(), stored.casts
        found.setdefault(key, []).append(part)
    return [*found.values(), *alone]


def by_encoding(parts: Sequence[Part]) -> list[list[Part]]:
    """The same tensors, parted by the encoding that is the shortest for each."""
    found: dict[int, list[Part]] = {}
    for part in parts:
        sizes = [part.payload(encoder) for encoder in ENCODERS]
        found.setdefault(int(np.argmin(sizes)), []).append(part)
    return list(found.values())


def joined(parts: Sequence[Part]) -> tuple[NDArray[Any], Places]:
    """Elements of tensors one after the other, and where the kept ones are among them."""
    if len(parts) == 1:
        return parts[0].stored.elements, parts[0].places
    ends = np.cumsum([part.stored.size for part in parts])
    places = [part.places + (end - part.stored.size) for part, end in zip(parts, ends, strict=True)]
    return np.concatenate([part.stored.elements for part in parts]), np.concatenate(places)


def shares(size: int, parts: Sequence[Part]) -> list[int]:
    """What each tensor takes of the bytes of all, by its kept elements; the sum is exact."""
    weights = np.cumsum([part.places.size + 1 for part in parts])
    ends = size * weights // weights[-1]
    return [int(share) for share in np.diff(ends, prepend=0)]
