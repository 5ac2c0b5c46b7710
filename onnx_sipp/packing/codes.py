"""Where the kept elements of a flat array are, in few bits.

Three ways, each within about a tenth of the entropy where it is used:

- `Mask`: a bit per element. The shortest for up to three quarters of zeros.
- `Nibbles`: the gap before each kept element in four bits; 15 means fifteen zeros and no element.
- `Gaps`: the distance from one kept element to the next in a byte; where it is above 255, an
  element that is a zero is kept in between. Longer than nibbles, but needs fewer operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Codes",
    "Gaps",
    "Mask",
    "Nibbles",
    "gaps_of",
    "kept_places",
    "mask_of",
    "nibbles_of",
    "usual_element",
]

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]

NIBBLE_SKIP = 15
BYTE_STEP = 255


@dataclass(frozen=True)
class Mask:
    """A bit per element, the lowest of each byte first.

    Attributes:
        data: uint8 ``[bytes]``.
        values: kept elements, behind the usual one.
        count: elements in all.
    """

    data: Bytes
    values: NDArray[Any]
    count: int


@dataclass(frozen=True)
class Nibbles:
    """Gaps of four bits, the low half of each byte first.

    Attributes:
        data: uint8 ``[bytes]``.
        values: kept elements, behind the usual one.
        count: nibbles; the last byte has one to spare if that is odd.
    """

    data: Bytes
    values: NDArray[Any]
    count: int


@dataclass(frozen=True)
class Gaps:
    """Distances of a byte each.

    Attributes:
        data: uint8 ``[entries]``; the first one counts from the start.
        values: ``[entries]``, the usual element where an entry is only there to bridge a gap.
    """

    data: Bytes
    values: NDArray[Any]


Codes = Mask | Nibbles | Gaps


def usual_element(flat: NDArray[Any]) -> NDArray[Any]:
    """What is left out: +0 of floating point, else the most common of one-byte elements.

    The zero of quantised weights is their zero point, which no one needs to know for this.

    Args:
        flat: ``[elements]``.

    Returns:
        ``[1]``, of the same type.
    """
    if flat.dtype in (np.uint8, np.int8):
        most = np.bincount(flat.view(np.uint8), minlength=256).argmax()
        return np.array([most], np.uint8).view(flat.dtype)
    return np.zeros(1, flat.dtype)


def kept_places(flat: NDArray[Any], usual: NDArray[Any]) -> Places:
    """Indices of the elements whose bits are not those of the usual one; -0 and NaN are kept."""
    bits = np.dtype(f"u{flat.dtype.itemsize}")
    return np.flatnonzero(flat.view(bits) != usual.view(bits)).astype(np.int64, copy=False)


def mask_of(flat: NDArray[Any], usual: NDArray[Any], places: Places) -> Mask:
    """Encode with a bit per element."""
    kept = np.zeros(flat.size, np.bool_)
    kept[places] = True
    bits = np.packbits(kept, bitorder="little")
    return Mask(bits, np.concatenate([usual, flat[places]]), flat.size)


def nibbles_of(flat: NDArray[Any], usual: NDArray[Any], places: Places) -> Nibbles:
    """Encode with four bits per kept element and per fifteen zeros in a gap."""
    skips, rest = np.divmod(np.diff(places, prepend=-1) - 1, NIBBLE_SKIP)
    codes, _ = _with_bridges(skips, rest, NIBBLE_SKIP)
    count = codes.size
    pairs = np.append(codes, np.zeros(count % 2, np.uint8)).reshape(-1, 2)
    data = (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8)
    return Nibbles(data, np.concatenate([usual, flat[places]]), count)


def gaps_of(flat: NDArray[Any], usual: NDArray[Any], places: Places) -> Gaps:
    """Encode with a byte per kept element, and an element more per 255 zeros in a gap."""
    steps = np.diff(places, prepend=0)
    bridges = np.maximum(steps - 1, 0) // BYTE_STEP
    codes, ends = _with_bridges(bridges, steps - BYTE_STEP * bridges, BYTE_STEP)
    values = np.repeat(usual, codes.size)
    values[ends] = flat[places]
    return Gaps(codes, values)


def _with_bridges(bridges: Places, last: Places, bridge: int) -> tuple[Bytes, Places]:
    """For each element so many bridges and a last code, one after the other.

    Returns:
        The codes, and where the last ones are.
    """
    ends = np.cumsum(bridges + 1) - 1
    codes = np.full(int(ends[-1]) + 1 if ends.size else 0, bridge, np.uint8)
    codes[ends] = last
    return codes, ends
